"""A run over Flower's own network: a superlink and two supernodes on this machine, with TLS."""

from __future__ import annotations

import datetime
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import torch

pytest.importorskip("flwr")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from asym_lightning.federated import FederatedAverage, LocalGrid, client_app
from tests.federated.flower.test_average import Module, make_client

ROOT = Path(__file__).parents[3]
LONGEST = 900  # seconds: five processes import torch
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "together"
version = "1.0.0"
description = "B and heads over one A"
license = "Apache-2.0"
dependencies = []

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "tests"

[tool.flwr.app.components]
serverapp = "app:server"
clientapp = "app:app"
"""
APP = """
import os

import torch
from flwr.serverapp import ServerApp

from tests.federated.flower.test_superlink import client_of, trained

app = client_of(os.environ["FLWR_HOME"])
server = ServerApp()


@server.main()
def main(grid, context):
    torch.save(trained(grid), os.environ["TRAINED"] + ".part")
    os.replace(os.environ["TRAINED"] + ".part", os.environ["TRAINED"])
"""


def client_of(folder):
    """The app of a client, which leaves its files in a folder."""
    return client_app(lambda context: make_client(context.node_config["partition-id"], folder))


def trained(grid):
    """B and head after two rounds of two clients."""
    strategy = FederatedAverage(Module(), min_clients=2, fraction_evaluate=0.0, handshake_timeout=LONGEST)
    strategy.adopt(strategy.start(grid, strategy.initial_arrays, num_rounds=2).arrays)
    return {name: parameter.detach() for name, parameter in strategy.parameters.items()}


def write_certificate(folder):
    """A certificate of this machine for itself, and its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.add_extension(names, critical=True).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


class Network:
    """Flower's programs, with a home of their own, until the context ends."""

    def __init__(self, folder):
        self.folder, self.programs = folder, Path(sys.executable).parent
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        own = {"FLWR_HOME": str(folder), "FLWR_TELEMETRY_ENABLED": "0", "TRAINED": str(folder / "trained.pt")}
        self.environment = {**os.environ, **own, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.stack = ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stack.close()

    def start(self, name, program, *arguments):
        log = self.stack.enter_context((self.folder / f"{name}.log").open("w"))
        command = [str(self.programs / program), *arguments]
        process = subprocess.Popen(
            command, env=self.environment, stdout=log, stderr=log, start_new_session=True, cwd=self.folder
        )
        self.stack.callback(end, process)
        return process

    def log(self, name):
        return (self.folder / f"{name}.log").read_text()


def end(process):
    """End a program and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_run_over_a_superlink_with_tls_gives_what_clients_in_one_process_give(tmp_path):
    write_certificate(tmp_path)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "app" / "app.py").write_text(APP)
    port, certificate = free_port(), str(tmp_path / "cert.pem")
    here = f'[superlink.here]\naddress = "127.0.0.1:{port}"\nroot-certificates = "{certificate}"\n'
    (tmp_path / "config.toml").write_text(here)
    tls = ["--ssl-ca-certfile", certificate, "--ssl-certfile", certificate, "--ssl-keyfile", str(tmp_path / "key.pem")]
    with Network(tmp_path) as network:
        where = ["--host", "127.0.0.1", "--port"]
        link = network.start(
            "link", "flower-superlink", *where, port, "--disable-runtime-dependency-installation", *tls
        )
        while "running on https://" not in network.log("link"):
            assert link.poll() is None, network.log("link")
            time.sleep(0.2)
        for number in range(2):
            to = ["--superlink", f"127.0.0.1:{port}", "--root-certificates", certificate]
            own = ["--node-config", f"partition-id={number}", *where, free_port(), *tls]
            network.start(f"node{number}", "flower-supernode", *to, *own)
        run = network.start("run", "flwr", "run", str(tmp_path / "app"), "here")
        assert run.wait(timeout=LONGEST) == 0, network.log("run")
        until = time.monotonic() + LONGEST
        while "Finished task" not in network.log("link"):
            assert time.monotonic() < until, network.log("link")
            time.sleep(0.5)
        assert (tmp_path / "trained.pt").exists(), network.log("link")
    found = torch.load(tmp_path / "trained.pt", weights_only=True)
    expected = trained(LocalGrid(client_of(tmp_path), 2))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)
