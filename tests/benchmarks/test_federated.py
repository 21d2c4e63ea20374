"""The federation of the config: what is sent, and a run of it."""

import pytest
import yaml

from benchmarks import federated

FEDERATION = federated.Federation(**yaml.safe_load(federated.CONFIG.read_text()))


def test_clients_share_the_images_out() -> None:
    parts = [federated.ClientData(FEDERATION, [client]).dataset for client in range(FEDERATION.num_clients)]
    assert FEDERATION.num_clients == 8 and sum(map(len, parts)) == 1197
    assert [FEDERATION.angle(client) for client in (0, 1, 4)] == [0, 90, 0]


@pytest.mark.slow
def test_a_round_sends_b_and_heads() -> None:
    pytest.importorskip("flwr")
    accuracy, sent = federated.federated(FEDERATION._replace(rounds=1), 0)
    sizes = federated.round_bytes(FEDERATION)
    assert 0.1 < accuracy < 1 and sent == sizes["B and heads"] < min(list(sizes.values())[1:])
