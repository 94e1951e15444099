import torch

from offrl.training._metric_sums import MetricSums


def test_a_sum_does_not_stop_where_float32_would():
    sums = MetricSums()
    sums.add({"entropy": torch.tensor(1.0)}, torch.tensor(1.0))
    for total in sums.totals.values():
        total.fill_(2.0**24)  # and one more would be the same in float32
    sums.add({"entropy": torch.tensor(1.0)}, torch.tensor(0.0))
    sums.add({"entropy": torch.tensor(1.0)}, torch.tensor(1.0))
    assert [total.item() for total in sums.totals.values()] == [2.0**24 + 1, 2.0**24 + 1]


def test_sums_of_an_earlier_version_go_on():
    sums = MetricSums()
    sums.load({"loss": torch.tensor(3.0), "skipped_updates": torch.tensor(1.0)}, 4, torch.device("cpu"))
    sums.add({"loss": torch.tensor(2.0)}, torch.tensor(0.0))
    sums.count += 1
    found = sums.read()
    assert found == ({"loss": 5 / 4}, 1.0)
