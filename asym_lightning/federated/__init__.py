"""Training on data that stay where they are, by Flower: what is sent is B and heads, over one frozen A."""

from typing import TYPE_CHECKING

from asym_lightning.core.lazy import lazy_imports

if TYPE_CHECKING:
    from asym_lightning.federated.flower.average import FederatedAverage
    from asym_lightning.federated.flower.client import FederatedClient, client_app
    from asym_lightning.federated.flower.local_grid import LocalGrid
else:
    __getattr__, __dir__ = lazy_imports(__name__)

__all__ = ["FederatedAverage", "FederatedClient", "LocalGrid", "client_app"]
