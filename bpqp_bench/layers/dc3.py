"""DC3: a network with completion of equalities and correction of inequalities (ICLR 2021).

Donti, Rolnick and Kolter, "DC3: A learning method for optimization with hard constraints". For a
QP or LP with fixed P, A, b, G, h a network maps q to some of the variables, the *partial* ones;
*completion* gives the others from Az = b; *correction* moves the partial variables down the
gradient of the inequalities' violation along Az = b. It is trained on the objective plus a soft
loss of the remaining violation, and approximates: no solution is optimal.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.linalg import lu_factor, lu_solve, qr
from torch import Tensor, nn

from bpqp_bench.errors import MethodError
from bpqp_bench.problem.family import Family
from bpqp_bench.problem.instance import Array, Instance

_CACHE_VERSION = 1


@dataclass(frozen=True)
class Settings:
    """Parameters of DC3; defaults are the paper's convex experiment except where noted.

    Attributes
    ----------
    hidden, dropout
        Width of the two hidden layers; probability of dropout.
    samples, epochs
        Training set and passes over it (the BPQP paper: 10000 and 500; here scaled down).
    batch, lr
        Minibatch; learning rate of Adam.
    soft_weight
        Weight of ‖max(Gz − h, 0)‖² in the loss.
    correction_steps, correction_rate, momentum, correction_tolerance
        Steps, rate γ, momentum, and violation at which correction stops outside training. γ = 0
        means 1/(2‖G_eff‖₂²), the inverse Lipschitz constant of the violation's gradient (the
        paper's experiment has 1e-7, for its own scaling of G).
    seed
        Of initial weights, dropout, order of samples and the samples themselves.
    """

    hidden: int = 200
    dropout: float = 0.2
    samples: int = 1000
    epochs: int = 50
    batch: int = 200
    lr: float = 1e-4
    soft_weight: float = 10.0
    correction_steps: int = 10
    correction_rate: float = 0.0
    momentum: float = 0.5
    correction_tolerance: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        counts = {"hidden": self.hidden, "samples": self.samples, "batch": self.batch}
        for name, value in counts.items():
            if value < 2:
                raise ValueError(f"{name} of DC3 must be at least 2 (batch normalization)")
        if self.epochs < 0 or self.correction_steps < 0:
            raise ValueError("epochs and correction_steps of DC3 must not be negative")
        if not 0 <= self.dropout < 1 or not 0 <= self.momentum < 1:
            raise ValueError("dropout and momentum of DC3 must be in [0, 1)")


@dataclass(frozen=True)
class Training:
    """What training took and reached.

    Attributes
    ----------
    seconds
        Wall time of the training (when it was done, if it comes from the cache).
    loss_before, loss_after
        Mean loss on held-out q, before and after.
    cached
        Whether the network was read from disk.
    """

    seconds: float
    loss_before: float
    loss_after: float
    cached: bool = False


class DC3(nn.Module):
    """Network, completion and correction for the QPs that share P, A, b, G, h.

    Parameters
    ----------
    P, A, b, G, h
        Problem data, NumPy arrays of shapes (n, n), (neq, n), (neq,), (nineq, n), (nineq,).
    settings
        Widths, correction, training.

    Raises
    ------
    ValueError
        If the rows of A are linearly dependent, or there are n or more.

    Notes
    -----
    The completed variables are the first neq columns of a QR factorization of A with column
    pivoting, which makes them a well-conditioned basis; their block is factorized once.
    """

    P: Tensor
    lift: Tensor
    shift: Tensor
    reduced: Tensor
    room: Tensor

    def __init__(
        self,
        P: Array,
        A: Array,
        b: Array,
        G: Array,
        h: Array,
        settings: Settings | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings or Settings()
        neq, n = A.shape
        if neq >= n:
            raise ValueError(f"{neq} equalities leave no free variable among {n}")
        other, partial = _basis(A)
        completion = np.zeros((0, n - neq))
        offset = np.zeros(0)
        if neq:
            factor = lu_factor(A[:, other])
            completion = -lu_solve(factor, A[:, partial])
            offset = lu_solve(factor, b)
        # z = lift @ partial variables + shift, with Az = b for every choice of them.
        lift, shift = np.zeros((n, n - neq)), np.zeros(n)
        lift[partial] = np.eye(n - neq)
        lift[other], shift[other] = completion, offset
        reduced = G @ lift
        norm = float(np.linalg.norm(reduced, 2)) if reduced.size else 0.0
        if self.settings.correction_rate > 0:
            self.rate = self.settings.correction_rate
        else:
            self.rate = 0.5 / norm**2 if norm > 0 else 0.0
        constants = {
            "P": P,
            "lift": lift,
            "shift": shift,
            "reduced": reduced,
            "room": h - G @ shift,
        }
        for name, value in constants.items():
            # Not part of the saved network: it follows from the problem.
            self.register_buffer(name, torch.from_numpy(value.copy()), persistent=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            self.network = _network(n, n - neq, self.settings)

    def forward(self, q: Tensor) -> Tensor:
        """Return the approximate solution for q, shape (n,) or (batch, n)."""
        partial = self.correct(self.network(q.reshape(-1, q.shape[-1])))
        return self.complete(partial).reshape(q.shape)

    def complete(self, partial: Tensor) -> Tensor:
        """Return z of shape (batch, n) with Az = b from partial variables (batch, n − neq)."""
        return partial @ self.lift.T + self.shift

    def violation(self, partial: Tensor) -> Tensor:
        """max(Gz − h, 0) of the completed z, shape (batch, nineq)."""
        return torch.relu(partial @ self.reduced.T - self.room)

    def correct(self, partial: Tensor) -> Tensor:
        """Take gradient steps on ‖max(Gz − h, 0)‖² in the partial variables (paper, section 3.2).

        Outside training a row is done once its largest violation is within the tolerance.
        """
        settings = self.settings
        step = torch.zeros_like(partial)
        for _ in range(settings.correction_steps):
            violation = self.violation(partial)
            step = 2 * self.rate * (violation @ self.reduced) + settings.momentum * step
            if not self.training:
                # By row, so that an answer does not depend on what else is in the batch.
                ongoing = (violation > settings.correction_tolerance).any(1, keepdim=True)
                if not ongoing.any():
                    break
                step = step * ongoing
            partial = partial - step
        return partial

    def loss(self, q: Tensor) -> Tensor:
        """Mean of ½zᵀPz + qᵀz + soft_weight·‖max(Gz − h, 0)‖² over the batch q (batch, n)."""
        partial = self.correct(self.network(q))
        z = self.complete(partial)
        objective = 0.5 * ((z @ self.P) * z).sum(1) + (q * z).sum(1)
        soft = self.violation(partial).square().sum(1)
        return (objective + self.settings.soft_weight * soft).mean()


def train(layer: DC3, q: Array, held_out: Array) -> Training:
    """Train by Adam on the given q; the layer is left in evaluation mode.

    Parameters
    ----------
    layer
        Trained in place.
    q, held_out
        Training and held-out samples, shapes (samples, n) and (any, n).
    """
    settings, device = layer.settings, layer.shift.device
    start = time.perf_counter()
    data, unseen = (torch.from_numpy(part).to(device) for part in (q, held_out))
    before = _evaluate(layer, unseen)
    optimizer = torch.optim.Adam(layer.network.parameters(), lr=settings.lr)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(settings.seed)
        for _ in range(settings.epochs):
            layer.train()
            for rows in torch.split(torch.randperm(len(data)), settings.batch):
                if len(rows) < 2:
                    continue  # batch normalization needs two
                optimizer.zero_grad()
                loss = layer.loss(data[rows.to(device)])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    after = _evaluate(layer, unseen)
    return Training(time.perf_counter() - start, before, after)


def cached_training(
    layer: DC3, q: Array, held_out: Array, identity: str, directory: Path
) -> Training:
    """Read the trained network from disk, or train it and write it there.

    Parameters
    ----------
    layer, q, held_out
        As for `train`.
    identity
        What the settings do not say and the network depends on: the problem data's hash and the
        distribution of q.
    directory
        Made if missing. A file is renamed into place, so that no reader sees half of one; one
        that cannot be read is replaced.

    Returns
    -------
    Training
        With ``cached`` set accordingly.
    """
    content = json.dumps([_CACHE_VERSION, asdict(layer.settings), identity], sort_keys=True)
    path = directory / f"{hashlib.sha256(content.encode()).hexdigest()[:40]}.pt"
    if path.exists():
        try:
            stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            layer.network.load_state_dict(stored["network"])
            layer.eval()
            return Training(**stored["training"], cached=True)
        except (OSError, KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError):
            path.unlink(missing_ok=True)
    training = train(layer, q, held_out)
    directory.mkdir(parents=True, exist_ok=True)
    facts = {k: v for k, v in asdict(training).items() if k != "cached"}
    temporary = directory / f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}"
    try:
        torch.save({"network": layer.network.state_dict(), "training": facts}, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return training


def samples(family: Family, template: Instance, settings: Settings) -> tuple[Array, Array]:
    """Draw q as the family draws them: training and held-out sets, shapes (samples, n), (any, n).

    Raises
    ------
    MethodError
        If the family cannot draw q alone.
    """
    if family.redraw_q is None:
        raise MethodError(f"family {family.name} cannot draw q alone, so there is no training set")
    drawn = []
    # Streams of their own, so that no training or held-out q is a measured one.
    for stream, rows in ((0xDC3, settings.samples), (0xDC3 + 1, min(settings.samples, 200))):
        rng = np.random.default_rng(np.random.SeedSequence((settings.seed, stream)))
        drawn.append(np.stack([family.redraw_q(template, rng) for _ in range(rows)]))
    return drawn[0], drawn[1]


def identity(template: Instance) -> str:
    """Name the distribution of problems that share P, A, b, G, h, for `cached_training`."""
    digest = hashlib.sha256()
    for name in ("P", "A", "b", "G", "h"):
        digest.update(np.ascontiguousarray(getattr(template, name)).data)
    return f"{template.family} {template.size} {digest.hexdigest()}"


def _basis(A: Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    # Columns completed from Az = b, and the others, each in ascending order.
    neq, n = A.shape
    if not neq:
        return np.zeros(0, dtype=int), np.arange(n)
    R, order = qr(A, mode="r", pivoting=True)
    diagonal = np.abs(np.diag(R))
    if diagonal[-1] <= n * np.finfo(np.float64).eps * diagonal[0]:
        raise ValueError(
            "the rows of A are linearly dependent, so completion cannot solve Az = b for neq "
            "variables; drop the redundant rows"
        )
    return np.sort(order[:neq]), np.sort(order[neq:])


def _network(inputs: int, outputs: int, settings: Settings) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = inputs
    for _ in range(2):
        layers += [
            nn.Linear(width, settings.hidden),
            nn.BatchNorm1d(settings.hidden),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
        ]
        width = settings.hidden
    layers.append(nn.Linear(width, outputs))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    return nn.Sequential(*layers).to(torch.float64)


def _evaluate(layer: DC3, q: Tensor) -> float:
    layer.eval()
    with torch.no_grad():
        return float(layer.loss(q))
