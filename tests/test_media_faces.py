"""Face crops: the rows asked for, in the file's channel order; anything but a whole file of crops is refused."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.errors import MediaError
from featurestore.media import count_faces, media_recipe, read_faces


def crops(count: int, size: int = 112) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (count, size, size, 3), np.uint8)


def saved(folder: Path, values: NDArray[np.generic], name: str = "a.npy") -> Path:
    np.save(folder / name, values)
    return folder / name


def test_rows_are_resized_as_opencv_does_and_keep_their_channels(tmp_path: Path) -> None:
    faces = crops(20)
    index = count_faces(saved(tmp_path, faces))
    assert (index.total, index.size) == (20, (112, 112))
    asked = [19, 0, 7, 7]
    expected = [cv2.resize(faces[number], (224, 224), interpolation=cv2.INTER_LINEAR) for number in asked]
    assert np.array_equal(read_faces(index, asked), expected)


def test_swapped_channels_or_another_filter_would_be_seen(tmp_path: Path) -> None:
    faces = crops(2)
    row = read_faces(count_faces(saved(tmp_path, faces)), [1])[0]
    for mutant in (
        cv2.resize(faces[1][..., ::-1], (224, 224), interpolation=cv2.INTER_LINEAR),
        cv2.resize(faces[1], (224, 224), interpolation=cv2.INTER_AREA),
        cv2.resize(faces[1], (224, 224), interpolation=cv2.INTER_CUBIC),
        cv2.resize(faces[0], (224, 224), interpolation=cv2.INTER_LINEAR),
    ):
        assert not np.array_equal(row, mutant)


def test_crops_of_any_shape_are_squashed(tmp_path: Path) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3), np.uint8)
    index = count_faces(saved(tmp_path, faces))
    assert read_faces(index, [2], (48, 32)).shape == (1, 48, 32, 3)
    assert np.array_equal(read_faces(index, [2], (60, 80))[0], faces[2])


def test_only_the_rows_asked_for_are_read(tmp_path: Path) -> None:
    """A sparse file of 40 GB answers at once, and takes no memory."""
    path = saved(tmp_path, crops(1))
    index = count_faces(path)
    with open(path, "r+b") as file:
        header = file.read(index.offset).replace(b"(1,", b"(1000000,")[: index.offset]
        file.seek(0)
        file.write(header)
        file.truncate(index.offset + 1_000_000 * 112 * 112 * 3)
    status = os.stat(path)
    large = type(index)(
        path,
        1_000_000,
        index.size,
        index.offset,
        index.source | {"size": status.st_size, "mtime_ns": status.st_mtime_ns},
    )
    assert not read_faces(large, [999_999]).any()


REFUSED = {
    "no faces": (np.zeros((0,)), "holds no faces"),
    "no crops": (np.zeros((0, 112, 112, 3), np.uint8), "holds no faces"),
    "floats": (np.zeros((2, 112, 112, 3), np.float32), "not uint8"),
    "one crop": (np.zeros((112, 112, 3), np.uint8), "not uint8"),
    "gray": (np.zeros((2, 112, 112), np.uint8), "not uint8"),
    "four channels": (np.zeros((2, 112, 112, 4), np.uint8), "not uint8"),
    "no width": (np.zeros((2, 112, 0, 3), np.uint8), "not uint8"),
    "columns first": (np.asfortranarray(np.zeros((2, 4, 4, 3), np.uint8)), "Fortran order"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_arrays_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    values, text = REFUSED[kind]
    path = saved(tmp_path, values)
    with pytest.raises(MediaError, match=text) as caught:
        count_faces(path)
    assert str(path) in str(caught.value)
    assert caught.value.deterministic


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "a.npy"
    np.save(path, np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(MediaError, match="object"):
        count_faces(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("keep", [-1, -112 * 112 * 3, -5 * 112 * 112 * 3 + 1])
def test_a_file_that_was_cut_off_is_refused(keep: int, tmp_path: Path) -> None:
    path = saved(tmp_path, crops(10))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MediaError, match="header announces"):
        count_faces(path)


def test_a_file_with_more_than_it_announces_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, crops(2))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(MediaError, match="header announces"):
        count_faces(path)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{'descr'", b"\x93NUMPY\x09\x00" + b"x" * 99]
)
def test_what_is_no_npy_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.npy"):
        count_faces(path)


def test_rows_that_are_not_there_are_refused(tmp_path: Path) -> None:
    index = count_faces(saved(tmp_path, crops(3)))
    for asked in ([3], [-1], []):
        with pytest.raises(MediaError, match="of 0 to 2"):
            read_faces(index, asked)


def test_a_file_that_changed_since_it_was_counted_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, crops(3))
    index = count_faces(path)
    saved(tmp_path, crops(4))
    with pytest.raises(MediaError, match="changed"):
        read_faces(index, [0])


def test_a_folder_or_a_missing_file_is_not_recorded(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.npy"):
        with pytest.raises(MediaError, match=str(path)) as caught:
            count_faces(path)
        assert not caught.value.deterministic


def test_the_recipe_says_that_blue_comes_first() -> None:
    assert media_recipe("face", (224, 224))["face_color"] == "bgr_as_rgb"


def test_shared_faces(shared_media: Path) -> None:
    faces = shared_media / "faces"
    index = count_faces(faces / "pyfeat_single_face" / "pyfeat_single_face.npy")
    bitmaps = sorted((faces / "pyfeat_single_face_aligned").glob("*.bmp"))
    expected = [cv2.resize(cv2.imread(str(path)), (224, 224), interpolation=cv2.INTER_LINEAR) for path in bitmaps]
    assert np.array_equal(read_faces(index, range(index.total)), expected)
    for name, text in (("empty_list", "holds no faces"), ("truncated", "header announces")):
        with pytest.raises(MediaError, match=text):
            count_faces(faces / name / f"{name}.npy")


def test_a_header_that_lies_about_its_length_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little") + b"{}")
    with pytest.raises(MediaError, match=r"a\.npy is not a \.npy file"):
        count_faces(path)


@pytest.mark.parametrize(
    "text", ["(" * 300, "{", f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'9' * 5000},)}}"]
)
def test_a_header_that_is_no_literal_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    with pytest.raises(MediaError, match=r"a\.npy is not a \.npy file"):
        count_faces(path)


def test_crops_larger_than_any_face_and_negative_shapes_are_refused(tmp_path: Path) -> None:
    for shape, text in (((1, 5000, 5000, 3), "5000 x 5000"), ((-1, 8, 8, 3), "not uint8")):
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        path = tmp_path / "a.npy"
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
        os.truncate(path, 128 + 75_000_000)  # a hole
        with pytest.raises(MediaError, match=text):
            count_faces(path)
