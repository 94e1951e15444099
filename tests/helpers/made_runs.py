"""Run directories, as `fit` and `offrl evaluate --out` leave them."""

import json

ROWS = [{"seed": 7, "score": 100.0, "length": 10}, {"seed": 8, "score": 300.0, "length": 30}]


def write_run(directory, algorithm="bcq", **config):
    directory.mkdir(parents=True)
    settings = {"algorithm_config": {"threshold": 0.3}, "learner": {"precision": "auto"}, "fit": {}, "replay": {}}
    about = {"algorithm": algorithm, "encoder": "offrl.networks.encoders:MLPEncoder", "settled": {"precision": "fp32"}}
    (directory / "config.json").write_text(json.dumps({**about, **settings, **config}))
    (directory / "metrics.csv").write_text("step,loss,learning_rate\n100,3.0,0.1\n200,1.0,0.1\n")
    (directory / "timings.csv").write_text("step,updates_per_second\n100,50.0\n200,25.0\n")
    environment = {"processor": "<Abacus>", "gpu": None, "versions": {"torch": "2.13.0"}}
    (directory / "environment.json").write_text(json.dumps(environment))
