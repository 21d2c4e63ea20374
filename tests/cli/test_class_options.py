import pytest
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser

from asym_lightning.cli.class_names import import_all
from asym_lightning.cli.class_options import check_options_of
from asym_lightning.cli.errors import one_sentence

ARGUMENTS = {"DomainBedDataModule": {"dataset": "PACS"}, "GLUEDataModule": {"task": "rte"}}


class Someones:
    def __init__(self, width: int, rate: "float" = 0.1, size: int = None, names: list[str] | None = None):  # noqa: RUF013
        pass

    class Inner:
        def __init__(self, is_wide: bool = False):
            pass


def check(class_path, **arguments):
    check_options_of("data", Namespace(class_path=class_path, init_args=Namespace(**arguments)))


@pytest.mark.parametrize("name", ["DigitsDataModule", "DomainBedDataModule", "GLUEDataModule", "AlpacaDataModule"])
def test_every_data_module_needs_a_batch_size(name):
    def build(loader):
        arguments = {**ARGUMENTS.get(name, {}), "loader": loader}
        return parser.instantiate_classes(
            parser.parse_object({"data": {"class_path": name, "init_args": arguments}})
        ).data

    import_all()  # so that classes are known by their bare names
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    with pytest.raises((TypeError, ValueError)) as error:
        build({"batch_size": None})
    assert one_sentence(error.value) == "`batch_size` must be an integer, not null."
    assert build({"batch_size": 3}).batch_size == 3


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
    check_options_of("data", None)
    check_options_of("data", Namespace(class_path="nowhere.Nothing", init_args=Namespace(size=None)))
