"""Names and values of settings, before any work starts; nothing here needs torch."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medsegdiff_bundle import configuration, settings
from medsegdiff_bundle.settings import reading

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
INFERENCE = configuration.read([CONFIGS / "inference.json"])
TRAIN = configuration.read([CONFIGS / "train.json"])


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("checkpiont", "checkpoint"),
        ("num_inference_step", "num_inference_steps"),
        ("displayable_configs#num_inference_step", "displayable_configs#num_inference_steps"),
        ("displayable_configs::ensemble_sise", "displayable_configs#ensemble_size"),
        ("dicom_codes#liver", None),
        ("Amp", "amp"),
        ("epochs", None),  # of train.json
        ("nothing_like_it", None),
    ],
)
def test_a_name_that_is_none(given, nearest):
    if given == "dicom_codes#liver":  # what it may hold is known to its reader alone
        settings.check_names({given: 1}, INFERENCE)
        return
    said = f"inference.json has no setting '{given}'" + (f": did you mean '{nearest}'\\?" if nearest else "\\.")
    with pytest.raises(ValueError, match=said):
        settings.check_names({given: 1}, INFERENCE, files="inference.json")


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 2},
        {"train#dataset#data": []},
        {"train::trainer::max_epochs": 2},
        {"load_pretrained#strict": True},
        {"experiment_name": "mine", "run_name": "first", "tracking_uri": "file:x"},
        {"my_loss": {}, "train#trainer#loss_function": "@my_loss"},
        {"additional_metrics#energy": {"_target_": "medsegdiff_bundle.metrics.EnergyDistance"}},
        {"_comment": "of mine"},
    ],
)
def test_names_that_are_right(given):
    settings.check_names(given, TRAIN, [TRAIN, given])


def test_an_entry_of_a_list_that_is_none():
    number = len(TRAIN["train"]["handlers"])
    with pytest.raises(ValueError, match=f"train#handlers has {number} entries, from 0"):
        settings.check_names({f"train#handlers#{number}#strict": True}, TRAIN)


@pytest.mark.parametrize(
    ("base", "name", "said"),
    [
        ("train.json", "train_transforms#9", "train_transforms is '.*' since 0.13: change what it names"),
        ("train.json", "val_transforms#5#pixdim", "val_transforms is '.*' since 0.13: change what it names"),
        ("train.json", "validate#inferer#ensemble_size", "validate#inferer is '@inferer' since 0.13"),
        ("train.json", "validate#postprocessing#transforms#3#method", "validate#postprocessing#transforms is '"),
        ("train.json", "preparation#3#pixdim", r"preparation is \['...'\] there, what its base says"),
        ("train.json", "train#handlers#11", "train#handlers has 11 entries, from 0"),
        ("train.json", "train#handlers#last", "train#handlers has 11 entries, from 0"),
        ("train.json", "nothing#like#it", "there is no nothing"),
        ("train.json", "epochs#3", "epochs is 20, which has no parts"),
        ("train.json", "+epochs", r"epochs is 20, to which \[1\] cannot be added"),
        ("inference.json", "preprocessing#transforms#3#pixdim", "there is no preprocessing#transforms#3"),
        ("inference.json", "inferer#seed#x", "inferer#seed is '@seed' since 0.13"),
    ],
)
def test_an_overlay_that_names_what_is_not_there(base, name, said, tmp_path):
    """One sentence with file and entry, in a file as among settings."""
    overlay = tmp_path / "o.json"
    overlay.write_text(json.dumps({name: [1]}))
    with pytest.raises(ValueError, match=f"o.json' sets '{re.escape(name)}', but {said}"):
        settings.read_files([CONFIGS / base, overlay])
    if "since 0.13" in said or "is '" in said:
        with pytest.raises(ValueError, match=f"There is no '{name}': {said}"):
            settings.check_names({name: 1}, configuration.read([CONFIGS / base]))


def test_handlers_keep_their_places():
    """Overlays of 0.12 count them; what came later is at the end."""
    names = [each["_target_"].split(".")[-1] for each in TRAIN["train"]["handlers"]]
    assert names[:4] == ["WeightsLoader", "MissingClasses", "EpochSeed", "EMAHandler"]
    assert names[4:7] == ["LrScheduleHandler", "FinalValidationHandler", "TrainingCheckpoint"]
    assert names[7:9] == ["ProgressHandler", "TensorBoardStatsHandler"]


def test_a_dictionary_is_checked_inside():
    with pytest.raises(ValueError, match="did you mean 'displayable_configs#fusion'"):
        settings.check_names({"displayable_configs": {"fusoin": "mean"}}, INFERENCE)


def test_files_of_a_user():
    """New entries are theirs to add; one that nothing refers to and that is nearly a setting is a slip."""
    settings.check_spelling({**TRAIN, "author": "me", "my_run": ["$1"]}, [TRAIN], ["my_run"])
    settings.check_spelling({**TRAIN, "epoch": 2, "train#trainer#max_epochs": "@epoch"}, [TRAIN])
    with pytest.raises(ValueError, match="no setting 'epoch': did you mean 'epochs'"):
        settings.check_spelling({**TRAIN, "epoch": 2}, [TRAIN])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"optimizer": 3}, "optimizer"),
        ({"network_def": "unet"}, "network_def"),
        ({"train": {**TRAIN["train"], "handlers": "none"}}, "train#handlers"),
        ({"train": {**TRAIN["train"], "trainer": True}}, "train#trainer"),
        ({"loss": "@other", "optimizer": None, "train": {**TRAIN["train"], "handlers": "$[]"}}, None),
        ({"patch_size": 16, "mine": 3, "pretrained": "a.pt"}, None),  # no components
    ],
)
def test_a_text_or_a_number_for_a_component(change, named):
    files = settings.bundle_files(ROOT)
    if named is None:
        settings.check_components({**TRAIN, **change}, files)
        return
    with pytest.raises(ValueError, match=f"^{named} must be a component, or what refers to one, got "):
        settings.check_components({**TRAIN, **change}, files)


@pytest.mark.parametrize("value", ["abc", "0" * 63, "g" * 64, 3])
def test_a_checksum(value):
    assert settings.typed("weights_sha256", "aB" * 32) == "aB" * 32 and settings.typed("weights_sha256", "none") is None
    with pytest.raises(ValueError, match="weights_sha256 must be "):
        settings.typed("weights_sha256", value)


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("anchor_only", "false", False),
        ("amp", "False", False),
        ("amp", "no", False),
        ("amp", "off", False),
        ("amp", 0, False),
        ("amp", "yes", True),
        ("amp", "TRUE", True),
        ("amp", 1, True),
        ("use_click", None, None),
        ("roi_size", "None", None),
        ("roi_size", "null", None),
        ("roi_size", (96, 96, 96), [96, 96, 96]),
        ("roi_size", 96, 96),
        ("members_per_batch", "2", 2),
        ("output_dir", 2024, "2024"),
        ("class_names", "liver", ["liver"]),
        ("spacing", 2, [2, 2, 2]),
        ("spacing", "1.5", [1.5, 1.5, 1.5]),
        ("spacing", (1, 1, 3), [1, 1, 3]),
        ("mirror_axes", 0, [0]),
        ("mirror_axes", [], []),
        ("learning_rate", "1e-3", 1e-3),
        ("epochs", 2.0, 2),
        ("displayable_configs#ensemble_size", "7", 7),
        ("device", "cpu", "cpu"),
        ("amp", "$1 > 2", "$1 > 2"),  # MONAI's to evaluate
        ("epochs", "@passes", "@passes"),
    ],
)
def test_a_value_as_people_type_it(name, value, meant):
    found = settings.typed(name, value)
    assert found == meant and type(found) is type(meant)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("amp", "maybe"),
        ("amp", 2),
        ("amp", None),
        ("seed", None),
        ("epochs", 2.5),
        ("epochs", "two"),
        ("epochs", True),
        ("epochs", 0),
        ("overlap", 1),
        ("learning_rate", float("nan")),
        ("roi_size", [32, 0, 32]),
        ("roi_size", []),
        ("seed", 2**63),
        ("epochs", 10**400),
        ("output_dir", ""),
        ("patch_size", []),
        ("uncertainty_maps", ["nope"]),
        ("spacing", [1, 1]),
        ("spacing", [1, 1, 1, 1]),
        ("spacing", []),
        ("spacing", [[1, 1, 1]]),
        ("spacing", "[1,1,1"),
        ("class_names", ["liver", "liver"]),
        ("class_names", []),
        ("class_names", [1, 2]),
        ("fusion", "median"),
        ("fusion", []),
        ("displayable_configs#num_inference_steps", "many"),
        ("case_pattern", "a("),
        ("case_pattern", 3),
        ("window", [1, 2, 3]),
        ("window", [2, 1]),
        ("window", ["low", "high"]),
        ("checkpoint", []),
        ("checkpoint", True),
        ("regions", [[]]),
        ("regions", [[0]]),
        ("regions", 3),
    ],
)
def test_a_value_that_is_none(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .*, got "):
        settings.typed(name, value)


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("network_def#anchor_residual", "false", False),
        ("network_def#channels", ("4", 8), [4, 8]),
        ("network_def#num_heads", "2", 2),
        ("network_def#dropout", "0.5", 0.5),
        ("network_def#embed_dim", "None", None),
        ("network_def#channels", "@channels", "@channels"),
        ("train#trainer#amp", "false", False),
        ("nothing#channels", "abc", "abc"),
        ("key_metric#fused", {"a": 1}, {"a": 1}),
    ],
)
def test_an_argument_of_a_component_is_of_the_type_that_it_says(name, value, meant):
    found = settings.typed(name, value, config=TRAIN)
    assert found == meant and type(found) is type(meant)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network_def#channels", "abc"),
        ("network_def#channels", None),
        ("network_def#num_heads", "many"),
        ("network_def#num_heads", 1.5),
        ("network_def#anchor_residual", "maybe"),
        ("network_def#dropout", "nan"),
        ("optimizer#lr", "abc"),
    ],
)
def test_an_argument_of_a_component_that_is_none(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .*, got "):
        settings.typed(name, value, config=TRAIN)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{no", "mine.json' is not a JSON file: "),
        ("", "mine.json' is not a JSON file: "),
        ("[" * 100000, "mine.json' is not a JSON file: "),
        ("[]", "mine.json' must hold a JSON object, got a list."),
        ('{"base": 3}', "base must be the name of a file, got 3."),
        ('{"base": "nowhere.json"}', "There is no configuration file '.*nowhere.json'."),
        ('{"augmentation": [["..."]]}', "'...' stands within augmentation, where there is nothing"),
        ('{"epochs": "..."}', "'...' stands within epochs, where there is nothing"),
    ],
)
def test_a_file_that_is_no_configuration(content, said, tmp_path):
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        configuration.read([CONFIGS / "train.json", tmp_path / "mine.json"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"roi_size": [32, 32]}, r"roi_size must have 3 numbers, .*, got \[32, 32\]"),
        ({"patch_size": [16, 16]}, r"patch_size must have 3 numbers, .*, got \[16, 16\]"),
        ({"patch_size": [10**5] * 3}, "patch_size .* is 1e[+]15 voxels"),
        ({"output_ext": "PNG"}, "output_ext must be of a format for volumes, got 'PNG'"),
        ({"mirror_axes": [0, 3]}, r"mirror_axes must be axes of the images, 0 to 2, got \[0, 3\]"),
    ],
)
def test_axes_that_the_images_do_not_have(given, said):
    with pytest.raises(ValueError, match=said):
        settings.check_fit({"spatial_dims": 3, **given})
    settings.check_fit({"spatial_dims": 3, "roi_size": 32, "patch_size": [16], "mirror_axes": [0, 2]})
    settings.check_fit({"spatial_dims": 2, "patch_size": [40, 56, 40]}, ())  # nothing is trained
    settings.check_fit({"spatial_dims": "@axes", **given})


def test_a_setting_that_nothing_uses(tmp_path):
    """The transforms of skin lesions and nodules are lists of their own, without window or ratios."""
    tasks = CONFIGS / "tasks"
    for name, value in {"window": [0, 200], "class_ratios": [1, 1], "class_values": [0, 255]}.items():
        task = "lidc" if name == "class_values" else "isic"
        content = configuration.read([CONFIGS / "train.json", tasks / f"{task}.json"])
        settings.check_fit(content)
        with pytest.raises(
            ValueError, match=rf"{name} \[.*\] would change nothing: no transform of \w+ is made with it"
        ):
            settings.check_fit({**content, name: value})
        settings.check_fit({**configuration.read([CONFIGS / "train.json"]), name: value})
    segmented = configuration.read([CONFIGS / "inference.json", tasks / "btcv.json"])
    settings.check_fit(segmented)  # class_ratios are for training, and there are no patches


def test_every_value_of_the_files_is_one():
    """Nothing that a file of the bundle says is refused or changed."""
    contents = settings.bundle_files(ROOT)
    assert len(contents) > 20
    for content in contents:
        settings.check_spelling(content, contents)
        for name in settings.KINDS.keys() & content.keys():
            assert settings.typed(name, content[name]) == content[name]


def test_a_bundle_without_its_configurations(tmp_path, monkeypatch):
    """As of a package of which only a part was copied."""
    monkeypatch.setattr(reading, "__file__", str(tmp_path / "medsegdiff_bundle" / "settings" / "reading.py"))
    for root in (tmp_path, tmp_path / "medsegdiff_bundle" / "bundle"):  # a checkout, and an installed package
        with pytest.raises(ValueError, match="There is no configs/inference.json in '.*bundle' or '"):
            settings.bundle_root()
        (root / "configs").mkdir(parents=True)
        (root / "configs" / "inference.json").write_text("{}")
        assert settings.bundle_root() == root
        (root / "configs" / "inference.json").unlink()


def test_nothing_heavy_is_imported():
    code = "import sys, medsegdiff_bundle.settings; print(sorted({'torch', 'monai', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_sizes_of_pictures_and_slices_are_two_numbers():
    for name in ("picture_size", "slice_size"):
        assert settings.typed(name, [16, 24]) == [16, 24]
        for wrong in ([16], [16, 16, 16]):
            with pytest.raises(ValueError, match=f"{name} must be a list of two positive whole numbers"):
                settings.typed(name, wrong)
