"""Image folders as people have them: read as they are meant, or refused with the fix, never misread."""

from __future__ import annotations

import os
import socket
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from transferscope.experiment.options import PictureOptions
from transferscope.images.image_folder import read_image_folder
from transferscope.images.pack import pack_split
from transferscope.images.source import ImageSource
from transferscope.images.split import PackedSplit
from transferscope.images.summary import drawn_examples
from transferscope.system.errors import UserError

Write = Callable[..., Path]
PICTURES = PictureOptions(store_size=8)


@pytest.fixture
def make(tmp_path: Path, write_image: Write) -> Callable[[Iterable[str]], Path]:
    """Write a picture under each of these paths, of two files where it ends with a slash; returns the root."""

    def write(paths: Iterable[str]) -> Path:
        root = tmp_path / "images"
        number = 0
        for path in paths:
            for name in ("1.png", "2.png") if path.endswith("/") else ("",):
                write_image(root / (path + name), seed=(number := number + 1))
        return root

    return write


def zipped(root: Path) -> Path:
    """The same files in an archive beside the folder."""
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(root))
    return root.with_suffix(".zip")


def shape(source: ImageSource) -> tuple[tuple[str, ...], list[int]]:
    """Class names and the size of each part."""
    return source.class_names, [len(source.part(part)) for part in source.parts]


PARTS = [
    ("train", "val"), ("train", "valid"), ("train", "validation"), ("train", "dev"), ("train", "test"),
    ("train", "testing"), ("train", "eval"), ("train", "holdout"), ("training", "testing"), ("trn", "tst"),
    ("Train", "Test"), ("TRAIN", "VAL"), ("train2017", "val2017"), ("train_set", "test_set"), ("training_set", "test_set"),
    ("train-images", "test-images"), ("train_data", "valid_data"), ("Train Images", "Validation Images"),
    ("seg_train", "seg_test"), ("ILSVRC2012_img_train", "ILSVRC2012_img_val"), ("trainval", "test"), ("trainset", "devset"),
]  # fmt: skip


@pytest.mark.parametrize("share", [None, 0.5])
@pytest.mark.parametrize("names", PARTS, ids="-".join)
def test_usual_names_of_parts(
    make: Callable[..., Path], names: tuple[str, str], share: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Usual names of parts are parts, in any case, also where class folders would be shared out."""
    root = make(f"{part}/{name}/" for part in names for name in ("cat", "dog"))
    source = read_image_folder(root, test_share=share)
    assert shape(source) == (("cat", "dog"), [4, 4])
    assert all(path.startswith(f"{names[0]}/") for path in source.train.paths)
    assert caplog.messages == []


def test_three_parts_under_other_names(make: Callable[..., Path]) -> None:
    """Training, Validation and Testing are train, validation and test."""
    root = make(f"{part}/{name}/" for part in ("Training", "Validation", "Testing") for name in ("cat", "dog"))
    source = read_image_folder(root)
    assert source.parts == ("train", "test", "validation")
    assert source.test.paths[0] == "Testing/cat/1.png"


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["train/a/", "val/", "dog/"], "/val: a part of the data without class folders: "),
        (["train/", "val/"], "/train: a part of the data without class folders: "),
        (["train/a/", "train/b/", "test/"], "/test: a part of the data without class folders: "),
        (["train/a/", "Train/b/", "val/a/"], ": Train/ and train/ both look like the train part: "),
        (["train/a/", "val/a/", "validation/a/"], ": val/ and validation/ both look like the val part: "),
        (["val/a/", "val/b/", "test/a/", "test/b/"], ": val/ and test/, but no train/"),
        (["train/a/", "train/b/", "cat/", "dog/"], ": train/ looks like a part of the data and cat/ like a class: "),
        (
            ["sketch/cat/", "sketch/dog/", "photo/cat/", "photo/dog/"],
            ": photo/ and sketch/ hold folders of the same names",
        ),
        (["fold_0/a/", "fold_0/b/", "fold_1/a/"], ": fold_0/ and fold_1/ hold folders of the same names (a)"),
        (
            ["cat/train/", "cat/test/", "dog/train/", "dog/test/", "emu/train/"],
            ": cat/ and dog/ hold folders of the same names (test, train)",
        ),
        (
            ["train_cat/", "train_dog/", "test_cat/", "test_dog/"],
            ": test_cat/ and train_cat/ look like the parts of one class: ",
        ),
        (
            ["trainA/", "trainB/", "testA/", "testB/"],
            ": testA/ and trainA/ look like parts: put the folder of each class",
        ),
        (["train_a/", "train_b/", "val_a/"], ": train_a/ and val_a/ look like the parts of one class: "),
        (["trainA/", "testB/"], ": testB/ and trainA/ look like parts: "),
        (["A_train/", "B_test/"], ": A_train/ and B_test/ look like parts: "),
        (["catTrain/", "catTest/", "dog/"], ": catTest/ and catTrain/ look like the parts of one class: "),
        (["train.cat/", "dog/", "val.cat/"], ": train.cat/ and val.cat/ look like the parts of one class: "),
        (
            ["train/n1/images/", "train/n2/images/", "val/images/"],
            "/val: no folder in it is named like a class of train/: put the images of each class in a folder of its own",
        ),
        (
            ["Trainingsdaten/a/", "Trainingsdaten/b/", "Testdaten/a/", "Testdaten/c/"],
            ": Testdaten/ and Trainingsdaten/ hold folders of the same names (a)",
        ),
    ],
)
def test_parts_are_never_classes(make: Callable[..., Path], paths: list[str], message: str) -> None:
    """What looks like parts and cannot be read as such is refused with the fix, not read as classes."""
    root = make(paths)
    with pytest.raises(UserError) as caught:
        read_image_folder(root, test_share=0.5)
    assert str(caught.value).startswith(f"{root}{message}")


def test_classes_that_are_named_like_parts(make: Callable[..., Path]) -> None:
    """A vehicle is a class: `train` beside others, with images in it; so is `freight train`."""
    source = read_image_folder(make(["bus/", "train/", "freight train/", "crash test/"]), test_share=0.5)
    assert source.class_names == ("bus", "crash test", "freight train", "train")


def test_classes_that_hold_the_name_of_a_part(make: Callable[..., Path]) -> None:
    """Words that begin or end so are no parts, and two parts of two words are two classes."""
    names = ["Strain", "Oval", "contest", "tester", "trainer", "test tube", "train station", "value"]
    assert read_image_folder(make(f"{name}/" for name in names), test_share=0.5).class_names == tuple(sorted(names))


def test_a_class_with_a_space_is_to_be_renamed(make: Callable[..., Path]) -> None:
    """In a part whose class is there without it."""
    root = make(["train/cat/", "train/dog/", "test/cat /", "test/dog/"])
    with pytest.raises(UserError, match="class 'cat ' is not in train/: rename it to 'cat'"):
        read_image_folder(root)


def test_a_part_beside_images_without_labels(make: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    """Under names that are not known to be parts, a folder of folders beside a flat one is named in a warning."""
    root = make(["Trainingsdaten/cat/", "Trainingsdaten/dog/", "Testdaten/"])
    read_image_folder(root, test_share=0.5)
    assert caplog.messages == [
        f"{root}/Trainingsdaten: read as a single class, though it holds the folders cat, dog: if these are the classes, "
        "give this folder as root, or name the parts train/ and test/"
    ]


def test_a_class_list_says_that_folders_are_classes(make: Callable[..., Path], tmp_path: Path) -> None:
    """Classes that hold folders of the same names are read where a list names them, byte order mark or not."""
    root = make(["cat/in/", "cat/out/", "dog/in/", "dog/out/"])
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n\r\n")
    assert shape(read_image_folder(root, test_share=0.5, class_list=tmp_path / "list.txt")) == (("cat", "dog"), [4, 4])


NESTED = {
    "one folder above the classes": ["photos/cat/", "photos/dog/"],
    "two folders above the classes": ["a/photos/cat/", "a/photos/dog/"],
    "one folder above the parts": [f"photos/{part}/{name}/" for part in ("train", "val") for name in ("cat", "dog")],
    "one folder in each part": [
        f"{part}/{part}/{name}/" for part in ("training_set", "test_set") for name in ("cat", "dog")
    ],
    "a train part alone": ["train/cat/", "train/dog/"],
    "a val part alone": ["val/cat/", "val/dog/"],
}


@pytest.mark.parametrize("archive", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("case", NESTED)
def test_one_folder_too_many(
    make: Callable[..., Path], case: str, archive: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that is alone is passed through, in archives as well, whatever macOS adds to them.

    A sentence says so where class folders, and not train/ and val/, lie below it.
    """
    root = make([*NESTED[case], "__MACOSX/photos/cat/._1.png", ".DS_Store.png"])
    source = read_image_folder(zipped(root) if archive else root, test_share=0.5)
    assert source.class_names == ("cat", "dog")
    said = "the class folders are taken from here" in caplog.text
    assert said == (case != "one folder above the parts")
    assert pack_split(source, "test", PICTURES, root.parent / "packed").num_classes == 2


@pytest.mark.parametrize(
    "paths", [["cat/"], ["photos/cat/"], ["train/cat/", "val/cat/"], ["train/train/cat/", "val/cat/"]]
)
def test_one_class_is_no_task(make: Callable[..., Path], paths: list[str]) -> None:
    """A task with one class, of which accuracy is always 1, is refused."""
    with pytest.raises(UserError, match=r"one class only \(cat\): a task needs two classes"):
        read_image_folder(make(paths), test_share=0.5)


CLUTTER = [
    ".ipynb_checkpoints/1-checkpoint.png", ".git/x.png", "__MACOSX/1.png", "@eaDir/1.png", ".Trashes/1.png",
    "#recycle/1.png", "$RECYCLE.BIN/1.png", ".DS_Store", "Thumbs.db", "._1.png", ".hidden.png", "desktop.ini",
    "__pycache__/1.png", "1.png~", "lost+found/1.png", "System Volume Information/1.png",
    "CVS/1.png", "node_modules/a/1.png",
]  # fmt: skip


@pytest.mark.parametrize("archive", [False, True], ids=["folder", "zip"])
def test_clutter_is_passed_over_at_every_depth(
    make: Callable[..., Path], archive: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What file managers, storage systems and editors leave behind is neither an image nor a class, wherever it lies."""
    root = make(["train/cat/", "train/cat/deep/3.png", "train/dog/", "val/cat/", "val/dog/"])
    picture = (root / "train/cat/1.png").read_bytes()
    for folder in ("", "train/", "train/cat/", "train/cat/deep/", "val/dog/"):
        for name in CLUTTER:
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (root / folder / name).write_bytes(picture)
    source = read_image_folder(zipped(root) if archive else root)
    assert source.train.paths == (
        "train/cat/1.png", "train/cat/2.png", "train/cat/deep/3.png", "train/dog/1.png", "train/dog/2.png"
    )  # fmt: skip
    assert len(source.test) == 4
    assert caplog.messages == []


def test_suffixes_of_images(make: Callable[..., Path], write_image: Write) -> None:
    """Usual suffixes in any case, and images without a suffix, are read and packed."""
    root = make(["cat/", "dog/"])
    jpeg, gif = write_image(root / "a.jpg").read_bytes(), write_image(root / "a.gif").read_bytes()
    (root / "a.jpg").unlink(), (root / "a.gif").unlink()
    names = ["a.JPG", "b.jfif", "c.jpe", "d.JPEG", "noend", "e.jpg?width=300", "IMG.0001", "f.Jif"]
    for name in names:
        (root / "cat" / name).write_bytes(jpeg)
    (root / "cat/anim").write_bytes(gif)
    for suffix in (".webp", ".tif", ".TIFF", ".bmp", ".gif", ".ppm", ".pgm", ".jp2", ".avif"):
        write_image(root / f"dog/x{suffix}", channels=1 if suffix == ".pgm" else 3)
    source = read_image_folder(root, test_share=0.5)
    assert len(source.train) + len(source.test) == 2 + len(names) + 1 + 2 + 9
    assert len(pack_split(source, "train", PICTURES, root.parent / "packed")) == len(source.train)


def test_what_is_not_read_is_counted(make: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    """Files that are no images, or not in a format that is read, are counted in one warning."""
    root = make(["train/cat/", "train/dog/", "val/cat/", "val/dog/", "train/loose.png", "extra/x.png"])
    for name in ("a.heic", "b.HEIC", "notes.txt", "README", "old.jpg_original"):
        (root / "train/cat" / name).write_bytes(b"no image")
    read_image_folder(root)
    assert caplog.messages == [
        f"{root}: passed over the folders beside the parts: extra",
        f"{root}: passed over 1 image beside the class folders and 2 .heic, 2 without a suffix, 1 .txt in class "
        "folders (they are left out; convert them, for example with `magick mogrify -format jpg *.heic`)",
    ]


def test_a_class_of_other_files_alone(make: Callable[..., Path]) -> None:
    """A class whose images are in a format that is not read says so."""
    root = make(["cat/", "dog/"])
    (root / "emu").mkdir()
    (root / "emu/1.heic").write_bytes(b"x")
    with pytest.raises(
        UserError,
        match=r"emu: no image in this class folder \(but 1 .heic; they are left out; convert them, .*\): remove it",
    ):
        read_image_folder(root, test_share=0.5)


def test_a_class_that_a_part_lacks(make: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    """A class without a test image is reported."""
    root = make(["train/cat/", "train/dog/", "val/cat/"])
    read_image_folder(root)
    assert caplog.messages == [f"{root}: the val part lacks images of dog"]


def test_classes_in_another_case(make: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    """`Cat` beside `cat` is reported; `Cat` in val where train has `cat` is refused with the name to give it."""
    root = make(["train/cat/", "train/dog/", "val/Cat/", "val/dog/"])
    with pytest.raises(UserError, match=r"val/Cat: class 'Cat' is not in train/: rename it to 'cat'"):
        read_image_folder(root)
    (root / "train/Cat").mkdir()
    (root / "train/Cat/1.png").write_bytes((root / "val/Cat/1.png").read_bytes())
    read_image_folder(root)
    assert "classes 'Cat' and 'cat' differ in case only" in caplog.text


@pytest.mark.parametrize("other", ["cat ", "Cat", " cat", "c at", "cat\u200b", "cat\xad"], ids=ascii)
def test_classes_that_look_alike(make: Callable[..., Path], other: str, caplog: pytest.LogCaptureFixture) -> None:
    """Spaces and characters of no width make two classes of what reads as one, which is reported."""
    read_image_folder(make(["cat/", f"{other}/", "dog/"]), test_share=0.5)
    assert "only; they are two classes" in caplog.text


@pytest.mark.parametrize("paths", [("cat/", "dog/"), ("train/cat/", "train/dog/", "val/cat/", "val/dog/")])
@pytest.mark.parametrize("kind", ["dangling", "loop", "pipe"])
def test_a_folder_that_moved_away_is_no_smaller_task(
    make: Callable[..., Path], paths: tuple[str, ...], kind: str
) -> None:
    """A link where a class or a part was, which leads nowhere now, is named; the task is not read without it."""
    root = make(paths)
    special(root / "bird", kind)
    with pytest.raises(UserError, match=r"bird: is a .*, where a folder may have been: bring it back or remove it"):
        read_image_folder(root, test_share=0.5)


def test_accents_in_two_spellings(make: Callable[..., Path], tmp_path: Path) -> None:
    """A folder as macOS spells its accents is the class of a list that spells them as others do."""
    root = make(["cafe\u0301/", "dog/"])
    (tmp_path / "list.txt").write_text("dog\ncaf\u00e9\n", encoding="utf-8")
    source = read_image_folder(root, test_share=0.5, class_list=tmp_path / "list.txt")
    assert source.train.labels.tolist() == [1, 0]
    make(["caf\u00e9/"])
    with pytest.raises(UserError, match="two class folders differ in the spelling of their accents only"):
        read_image_folder(root, test_share=0.5)


NAMES = [b"caf\xe9", b"a\nb", b"tab\there", b"\x1b[31mred", b"<script>alert(1)<b>&amp;", b"x" * 255, b"a$b_{c", b" "]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_of_a_class_or_file(make: Callable[..., Path], name: bytes, tmp_path: Path) -> None:
    """Names that are no UTF-8, hold control characters or are very long are packed and tabled as one printable line."""
    root = make(["dog/", "cat/"])
    (root / "cat").rename(root / os.fsdecode(name))
    if len(name) < 200:
        (root / "dog/1.png").rename(root / "dog" / os.fsdecode(name + b".png"))
    source = read_image_folder(root, test_share=0.5)
    split = pack_split(source, "train", PICTURES, tmp_path / "packed")
    assert all(text.isprintable() for text in (*split.class_names, *split.example_ids))
    assert split.folder is not None
    assert PackedSplit.open(split.folder).class_names == split.class_names
    drawn_examples(source).to_csv(tmp_path / "drawn.csv")


def special(path: Path, kind: str) -> None:
    """Make something that is no file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            os.chdir(path.parent)
            server.bind(path.name)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    else:
        path.symlink_to({"device": "/dev/zero", "dangling": "nowhere", "loop": path.name}[kind])


SPECIAL = {
    "pipe": "is a named pipe and no file: remove it",
    "socket": "is a socket and no file: remove it",
    "device": "is a device and no file: remove it",
    "dangling": "cannot be read (No such file or directory)",
    "loop": "cannot be read (Too many levels of symbolic links)",
    "empty": "the file is empty (0 bytes): replace it or drop it from the list",
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_named(
    make: Callable[..., Path], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pipes, sockets, devices, links to nothing and empty files are one line, or dropped with it; nothing hangs."""
    monkeypatch.chdir(tmp_path)
    root = make(["train/cat/", "train/dog/", "val/cat/", "val/dog/"])
    special(root / "train/cat/x.png", kind)
    source = read_image_folder(root)
    assert [line.partition(": ")[0] for line in source.unreadable] == (
        [] if kind == "empty" else [f"{root}/train/cat/x.png"]
    )
    with pytest.raises(UserError) as caught:
        pack_split(source, "train", PICTURES, tmp_path / "stopped")
    assert str(caught.value) == f"{root}/train/cat/x.png: {SPECIAL[kind]}"
    dropped = pack_split(source, "train", PICTURES, tmp_path / "dropped", on_bad_image="drop").dropped
    assert [(file.path, file.reason) for file in dropped] == [("train/cat/x.png", str(caught.value))]


def test_what_is_no_file_stops_before_any_image_is_decoded(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last file of a part is looked at before the first one is decoded."""
    root = make(["train/cat/", "train/dog/", "val/cat/", "val/dog/"])
    special(root / "train/dog/x.png", "pipe")
    monkeypatch.setattr("transferscope.images.pack.decode_image", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UserError, match="named pipe"):
        pack_split(read_image_folder(root), "train", PICTURES, tmp_path / "out")


def test_a_folder_named_like_an_image(make: Callable[..., Path]) -> None:
    """A folder `x.png` in a class is a folder, and what lies in it belongs to the class."""
    root = make(["cat/", "cat/x.png/3.png", "dog/"])
    source = read_image_folder(root, test_share=0.5)
    assert "cat/x.png/3.png" in (*source.train.paths, *source.test.paths)


def test_links_that_lead_to_each_other(make: Callable[..., Path]) -> None:
    """Two folders that link to each other are refused, not read forty times."""
    root = make(["cat/", "dog/"])
    (root / "cat/more").symlink_to(root / "dog")
    (root / "dog/more").symlink_to(root / "cat")
    with pytest.raises(UserError, match=r"cat/more/more: a link to a folder that holds it: remove the link"):
        read_image_folder(root, test_share=0.5)


def test_a_link_to_a_folder_with_a_longer_name(make: Callable[..., Path], tmp_path: Path) -> None:
    """A link to a folder whose path is the beginning of another's is no loop."""
    root = make(["cats/", "dog/"])
    other = tmp_path / "cat"
    (root / "dog").rename(other)
    (tmp_path / "cats").symlink_to(root)
    (root / "cats/more").symlink_to(other)
    make(["dog/"])
    assert len(read_image_folder(tmp_path / "cats", test_share=0.5).train) == 3


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "dangling", "loop", "folder"])
def test_special_files_in_other_places(
    make: Callable[..., Path], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe or device as root or as class_list is one line, too, and nothing waits for it."""
    monkeypatch.chdir(tmp_path)
    root = make(["cat/", "dog/"])
    special(tmp_path / "x.zip", kind)
    with pytest.raises(UserError):
        read_image_folder(tmp_path / "x.zip", test_share=0.5)
    with pytest.raises(UserError, match=r"^class_list .*x\.zip: "):
        read_image_folder(root, test_share=0.5, class_list=tmp_path / "x.zip")


def test_a_very_deep_folder(make: Callable[..., Path]) -> None:
    """Depth costs no recursion."""
    root = make(["cat/", "dog/"])
    here = os.open(root / "cat", os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert len(read_image_folder(root, test_share=0.5).train) == 2
