"""The federated round of the gallery on Flower: clients answer one query with their statistics, the server solves.

pip install "krrdistill[cli]" "flwr[simulation]"
python examples/federated_flower.py
"""

from __future__ import annotations

import json
import os

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

import krrdistill as kd

SITES = 4
DATASET = os.environ.get("DATASET", "digits")

client = ClientApp()
server = ServerApp()


def feature_map() -> kd.FeatureMap:
    """The map that server and clients agreed on: raw inputs, no scaling from anybody's data."""
    return kd.FCNN(kd.load_dataset(DATASET).x_train[0].size, seed=0)


@client.query()
def send_statistics(message: Message, context: Context) -> Message:
    """One client: the statistics of its samples, as arrays and a header."""
    site, data = int(context.node_config["partition-id"]), kd.load_dataset(DATASET)
    rows = np.array_split(np.arange(len(data.y_train)), SITES)[site]
    own = kd.RidgeStatistics(feature_map(), data.n_classes, precision="float64", shard=f"site {site}")
    header, arrays = own.update(data.x_train[rows], data.y_train[rows]).to_arrays()
    answer = {
        "header": ConfigRecord({"json": json.dumps(header)}),
        "arrays": ArrayRecord({name: Array(np.atleast_1d(array)) for name, array in arrays.items()}),
        "shapes": ConfigRecord({name: json.dumps(array.shape) for name, array in arrays.items()}),
    }
    return Message(RecordDict(answer), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """The server: asks every client once, merges, solves, distils, and compares with the pooled data."""
    phi, data = feature_map(), kd.load_dataset(DATASET)
    while len(nodes := list(grid.get_node_ids())) < SITES:
        pass
    queries = [Message(RecordDict(), dst_node_id=node, message_type="query") for node in nodes]
    total = kd.RidgeStatistics(phi, data.n_classes, precision="float64")
    for reply in grid.send_and_receive(queries):
        content, shapes = reply.content, reply.content["shapes"]
        arrays = {name: value.numpy().reshape(json.loads(shapes[name])) for name, value in content["arrays"].items()}
        total += kd.RidgeStatistics.from_arrays(phi, json.loads(content["header"]["json"]), arrays)
    model = kd.fit_model(total, selection="gcv")
    points = kd.distill_model(model, points_per_class=1)
    pooled = kd.RidgeStatistics(phi, data.n_classes, precision="float64").update(data.x_train, data.y_train)
    expected = kd.fit_model(pooled, selection="gcv")
    difference = np.linalg.norm(model.W - expected.W) / np.linalg.norm(expected.W)
    print(f"{len(nodes)} clients, {total.n} samples, shards {sorted(total.shards)}")
    print(f"model against the pooled data's: relative difference {difference:.1e}, lambda {model.lambda_:g}")
    print(f"test accuracy {model.score(data.x_test, data.y_test):.4f}, points: {points}")


if __name__ == "__main__":
    run_simulation(server_app=server, client_app=client, num_supernodes=SITES)
