import pytest
from jsonargparse import Namespace

from asym_lightning.cli.null_options import check_nulls


class Someones:
    def __init__(self, width: int, rate: "float" = 0.1, size: int = None, names: list[str] | None = None):  # noqa: RUF013
        pass

    class Inner:
        def __init__(self, is_wide: bool = False):
            pass


def check(class_path, **arguments):
    check_nulls("data", Namespace(class_path=class_path, init_args=Namespace(**arguments)))


@pytest.mark.parametrize("name", ["DigitsDataModule", "DomainBedDataModule", "GLUEDataModule", "AlpacaDataModule"])
def test_every_data_module_needs_a_batch_size(name):
    with pytest.raises(ValueError, match=r"^`data.batch_size` must be an integer, not null.$"):
        check(f"asym_lightning.data.{name}", batch_size=None)
    check(f"asym_lightning.data.{name}", batch_size=3)


def test_types_of_anyones_class_are_read():
    path = f"{__name__}.Someones"
    check(path, width=1, size=None, names=None)
    with pytest.raises(ValueError, match=r"`data.width` must be an integer, not null."):
        check(path, width=None)
    with pytest.raises(ValueError, match=r"`data.rate` must be a number, not null."):
        check(path, rate=None)
    with pytest.raises(ValueError, match=r"`data.is_wide` must be true or false, not null."):
        check(f"{path}.Inner", is_wide=None)


def test_no_class_and_an_unknown_one_are_left_to_others():
    check_nulls("data", None)
    check_nulls("data", Namespace(class_path="nowhere.Nothing", init_args=Namespace(size=None)))
