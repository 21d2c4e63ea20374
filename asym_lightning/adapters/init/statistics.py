"""What calibration batches tell of one A, for rules that draw from data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class CalibrationStatistics:
    """Second moments of what one A reads and of the gradients of the weight that it adapts.

    >>> import torch
    >>> x = torch.randn(20, 4)
    >>> CalibrationStatistics(inputs=x.T @ x / 20).d_in
    4

    Args:
        inputs: S (d_in, d_in), the mean of ``x x^T`` over the layer's inputs x, not centred. Of a convolution x is a
            window, flattened as the kernel is.
        gradients: (k, d_in) rows whose Gram matrix is the sum over batches of ``G^T G``, with G (d_out, d_in) the
            loss's gradient by the rows of the weight that are adapted: the G one above the other, or fewer rows in
            their place. The factor and not the product, since it is the smaller one where d_in is large. ``None`` means
            that no gradients were taken.
        outputs: (d_out, d_out), the mean of ``g g^T`` over the loss's gradients g by the outputs of those rows.
            ``None`` means that it was not taken.
        taken: (m, d_in) orthonormal rows: directions of x that earlier tasks have. A is drawn in the others. ``None``
            means that nothing is known of earlier tasks.

    Raises:
        ValueError: S is not square, gradients or directions are not as long, or one of them holds NaN or infinity.
    """

    inputs: Tensor
    gradients: Tensor | None = None
    outputs: Tensor | None = None
    taken: Tensor | None = None

    def __post_init__(self) -> None:
        if self.inputs.shape != (self.d_in, self.d_in):
            raise ValueError(f"`inputs` must be {self.d_in} x {self.d_in}, got {tuple(self.inputs.shape)}.")
        for name in ("gradients", "taken"):
            rows: Tensor | None = getattr(self, name)
            if rows is not None and (rows.dim() != 2 or rows.shape[1] != self.d_in):
                raise ValueError(f"`{name}` must be k x {self.d_in}, got {tuple(rows.shape)}.")
        for name in ("inputs", "gradients", "outputs", "taken"):
            matrix: Tensor | None = getattr(self, name)
            if matrix is not None and not matrix.isfinite().all():
                raise ValueError(f"`{name}` holds NaN or infinity.")

    @property
    def d_in(self) -> int:
        """Number of inputs."""
        return len(self.inputs)

    def weight_gradients(self) -> Tensor:
        """The gradients' rows.

        Raises:
            ValueError: None were taken.
        """
        if self.gradients is None:
            raise ValueError("these statistics are of inputs alone, and the init rule draws from gradients too.")
        return self.gradients

    def along(self, basis: Tensor) -> CalibrationStatistics:
        """The same of ``basis x``, which none of the earlier tasks has.

        Args:
            basis: (k, d_in) orthonormal rows.
        """
        Q = basis.to(self.inputs)
        gradients = None if self.gradients is None else self.gradients @ Q.T
        return CalibrationStatistics(Q @ self.inputs @ Q.T, gradients, self.outputs)


Data = CalibrationStatistics | Tensor
"""What a rule that needs data draws from, or the (rank, d_in) rows that it drew from them before."""
