"""obp's estimates on the Open Bandit sample that it brings: one log of one-step episodes for each campaign and logger.

Writes what an estimator needs of each log, and what obp's own estimators make of it. The evaluated policy is the other
logger: Bernoulli Thompson sampling with the production's prior where the log is of the uniform policy, and the uniform
policy where it is of Thompson sampling. The model of the direct method is obp's `RegressionModel` over a logistic
regression, cross-fitted in three folds. Each action was shown at one of three positions, which model and policy know.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import obp
from obp.dataset import OpenBanditDataset
from obp.ope import (
    DirectMethod,
    DoublyRobust,
    InverseProbabilityWeighting,
    RegressionModel,
    SelfNormalizedInverseProbabilityWeighting,
)
from obp.policy import BernoulliTS
from sklearn.linear_model import LogisticRegression

CAMPAIGNS = ("all", "men", "women")
LOGGERS = ("random", "bts")
ESTIMATORS = {
    "IPS": InverseProbabilityWeighting,
    "SNIPS": SelfNormalizedInverseProbabilityWeighting,
    "DM": DirectMethod,
    "DR": DoublyRobust,
}


def evaluate(campaign: str, logger: str, folder: Path) -> dict[str, float]:
    """Estimates of one log, whose arrays are saved as CAMPAIGN-LOGGER.npz."""
    data = OpenBanditDataset(behavior_policy=logger, campaign=campaign)
    log = data.obtain_batch_bandit_feedback()
    size, actions, positions = data.n_rounds, data.n_actions, data.len_list
    if logger == "random":
        policy = BernoulliTS(
            n_actions=actions, len_list=positions, is_zozotown_prior=True, campaign=campaign, random_state=0
        )
        chosen = policy.compute_batch_action_dist(n_sim=10_000, n_rounds=size)
    else:
        chosen = np.full((size, actions, positions), 1 / actions)
    model = RegressionModel(
        n_actions=actions,
        len_list=positions,
        action_context=data.action_context,
        base_model=LogisticRegression(C=100, max_iter=2000, random_state=0),
    )
    values = model.fit_predict(
        context=log["context"],
        action=log["action"],
        reward=log["reward"],
        position=log["position"],
        pscore=log["pscore"],
        n_folds=3,
        random_state=0,
    )
    rows = np.arange(size)
    np.savez(
        folder / f"{campaign}-{logger}.npz",
        context=log["context"],
        action=log["action"],
        reward=log["reward"],
        behaviour=log["pscore"],
        policy=chosen[rows, :, log["position"]],
        values=values[rows, :, log["position"]],
    )
    return {
        name: float(
            kind().estimate_policy_value(
                reward=log["reward"],
                action=log["action"],
                position=log["position"],
                pscore=log["pscore"],
                action_dist=chosen,
                estimated_rewards_by_reg_model=values,
            )
        )
        for name, kind in ESTIMATORS.items()
    }


def main() -> None:
    """Prints the estimates as JSON; the arrays go to the folder that is the argument."""
    folder = Path(sys.argv[1])
    logs = {f"{campaign}-{logger}": evaluate(campaign, logger, folder) for campaign in CAMPAIGNS for logger in LOGGERS}
    print(json.dumps({"obp": obp.__version__, "numpy": np.__version__, "logs": logs}))


if __name__ == "__main__":
    main()
