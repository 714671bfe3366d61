"""Pictures of 16 bits and DICOM: the same 8 bits in `convert`, training and `predict`, and one error for what cannot be read."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from test_convert import RED, names, run, write_csv, write_xml  # noqa: F401
from test_dataset import joint

from gradnorm_plugin.pictures import PictureError, decode, dicom_frames, is_deep, spread
from gradnorm_plugin.predict import ImageError
from gradnorm_plugin.predict.images import as_picture, read_image
from gradnorm_plugin.predict.sources import STREAM_FPS, open_source

pydicom = pytest.importorskip("pydicom")
WIDTH, HEIGHT = 40, 20
RAMP = np.linspace(0, 4095, WIDTH * HEIGHT).astype(np.uint16).reshape(HEIGHT, WIDTH)  # 12 bits, as X-ray detectors have


def write_dicom(file: Path, values: np.ndarray = RAMP, **tags: object) -> Path:
    """A secondary capture, with pydicom's own defaults but for `tags`."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    colour = values.shape[-1] == 3
    data.Rows, data.Columns = values.shape[-3:-1] if colour else values.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        data.PlanarConfiguration = 0
    if values.ndim == 3 + colour:
        data.NumberOfFrames = len(values)
    data.BitsAllocated = data.BitsStored = values.itemsize * 8
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(values.dtype.kind == "i")
    data.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    file.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(file, enforce_file_format=True)
    return file


def only(file: Path) -> np.ndarray:
    (frame,) = dicom_frames(file.read_bytes())[0]
    assert frame.dtype == np.uint8 and frame.shape[2] == 3 and frame.flags.c_contiguous
    return frame


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(np.round(values), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def test_spread():
    assert spread(np.array([[300, 351, 555]], np.uint16)).tolist() == [[0, 51, 255]]
    assert spread(np.array([[-1.5, np.nan, np.inf, 0.5]], np.float32)).tolist() == [[0, 0, 0, 255]]
    assert not spread(np.full((2, 2), 7, np.uint16)).any() and not spread(np.full((2, 2), np.nan)).any()


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("cache", [None, "ram", "disk"])
def test_training_and_predict_read_the_same_of_16_bits(tmp_path, suffix, cache):
    (tmp_path / "labels").mkdir()
    Image.fromarray(RAMP.astype(np.float32) / 7 - 100).save(tmp_path / "float.tif")
    assert np.array_equal(read_image(tmp_path / "float.tif"), grey(spread(RAMP)))
    rgb = np.random.default_rng(0).integers(100, 3000, (64, 64, 3), dtype=np.uint16)
    for name, values in (("grey", cv2.resize(RAMP, (64, 64))), ("colour", rgb), ("plain", (rgb >> 4).astype(np.uint8))):
        (tmp_path / "images").mkdir(exist_ok=True)
        file = tmp_path / "images" / f"{name}.{suffix}"
        cv2.imwrite(str(file), values)
        (tmp_path / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n\n1 0\n")
        assert is_deep(file) == (suffix == "tif" or name != "plain")
    data = joint(tmp_path / "images", **({"cache_images": cache} if cache else {}))
    for n, file in enumerate(map(Path, data.im_files)):
        expected = read_image(file)
        if file.stem != "plain":
            assert expected.min() == 0 and expected.max() == 255, "not the upper eight bits, which are nearly black"
        for _ in range(2):
            assert np.array_equal(data.load_image(n)[0], expected)
        with Image.open(file) as picture:
            assert file.stem == "colour" or np.array_equal(as_picture(picture)[1], expected)
        assert np.array_equal(as_picture(file.read_bytes())[1], expected)
    assert np.array_equal(as_picture(rgb)[1], read_image(tmp_path / "images" / f"colour.{suffix}"))


def test_dicom_is_shown_as_its_window_says(tmp_path):
    file = tmp_path / "a.dcm"
    values = RAMP.astype(float)
    assert np.array_equal(only(write_dicom(file)), grey(spread(RAMP))), "no window: from the darkest to the lightest"
    window = {"WindowCenter": [2000, 9], "WindowWidth": [1000, 9]}
    linear = grey(((values - 1999.5) / 999 + 0.5) * 255)
    assert np.array_equal(only(write_dicom(file, **window)), linear), "the first of several windows"
    assert np.array_equal(only(write_dicom(file, **window, PhotometricInterpretation="MONOCHROME1")), 255 - linear)
    exact = only(write_dicom(file, **window, VOILUTFunction="LINEAR_EXACT"))
    assert np.array_equal(exact, grey((values - 1500) / 1000 * 255))
    assert abs(int(only(write_dicom(file, **window, VOILUTFunction="SIGMOID"))[RAMP == RAMP.flat[390]][0, 0]) - 127) < 3
    hounsfield = write_dicom(file, (RAMP.astype(np.int16) - 1000), RescaleSlope=2, RescaleIntercept=-24, **window)
    assert np.array_equal(only(hounsfield), grey((((values - 1000) * 2 - 24 - 1999.5) / 999 + 0.5) * 255))
    eight = (RAMP >> 5).astype(np.uint8)
    assert np.array_equal(only(write_dicom(file, eight)), grey(eight)), "eight bits are as they are"
    colour = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    assert np.array_equal(only(write_dicom(file, colour)), colour[..., ::-1])
    assert np.array_equal(read_image(file), colour[..., ::-1])
    assert np.array_equal(as_picture(io.BytesIO(file.read_bytes()))[1], colour[..., ::-1])


def test_predict_goes_through_dicom_in_folders_and_films_as_videos(tmp_path):
    write_dicom(tmp_path / "a.dcm")
    film = np.stack([np.full((HEIGHT, WIDTH), value, np.uint8) for value in range(7)])
    write_dicom(tmp_path / "film.DICOM", film, FrameTime="40")
    cv2.imwrite(str(tmp_path / "z.png"), RAMP)
    (tmp_path / "broken.dcm").write_bytes((tmp_path / "a.dcm").read_bytes()[:-100])
    (tmp_path / "other.dcm").write_text("no DICOM at all")
    source = open_source(str(tmp_path), vid_stride=2)
    frames = [frame for (frame,) in source]
    assert source.total == 8  # a, the two that cannot be read, z, and four of seven frames at most
    assert [(Path(frame.path).name, frame.number) for frame in frames] == [
        ("a.dcm", None),
        *(("film.DICOM", number) for number in (1, 2, 3)),
        ("z.png", None),
    ]
    assert [int(frame.image[0, 0, 0]) for frame in frames[1:4]] == [1, 3, 5] and frames[1].fps == 12.5
    assert np.array_equal(frames[0].image, frames[4].image), "without a window as a picture of 16 bits"
    assert len(source.unreadable) == 2
    assert re.search(r"broken.dcm: its pixels cannot be read: ", source.unreadable[0])
    assert re.search(r"other.dcm: not readable as DICOM: ", source.unreadable[1])
    with pytest.raises(ImageError, match="film.DICOM: a film of several frames"):
        read_image(tmp_path / "film.DICOM")
    write_dicom(tmp_path / "film.DICOM", film)
    assert next(iter(open_source(str(tmp_path / "film.DICOM"))))[0].fps == STREAM_FPS


def test_dicom_without_pydicom_or_a_picture_is_one_error(tmp_path, monkeypatch):
    file = write_dicom(tmp_path / "a.dcm")
    data = pydicom.dcmread(file)
    del data.PixelData
    data.save_as(tmp_path / "b.dcm")
    with pytest.raises(ImageError, match=r"b.dcm: DICOM without a picture"):
        read_image(tmp_path / "b.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(PictureError, match="needs the package pydicom: pip install"):
        dicom_frames(file.read_bytes())


@pytest.mark.parametrize("link", [(), ("--link",)])
def test_convert_writes_8_bits(run, tmp_path, link):  # noqa: F811
    images = tmp_path / "source" / "JPEGImages"
    write_dicom(images / "a.dcm", RAMP, WindowCenter=1000, WindowWidth=500)
    write_dicom(images / "film.dcm", np.zeros((3, HEIGHT, WIDTH), np.uint8))
    cv2.imwrite(str(images / "b.png"), RAMP)
    cv2.imwrite(str(images / "c.tif"), RAMP[::-1].copy())
    cv2.imwrite(str(images / "d.png"), (RAMP >> 4).astype(np.uint8))
    for stem in ("a", "b", "c", "d", "film"):
        write_xml(tmp_path / "source" / "Annotations" / f"{stem}.xml", RED)
    table = write_csv(tmp_path / "t.csv", [("a.dcm", "x"), ("b", "y"), ("c", "x"), ("d", "y")])
    found = run("--classes-csv", table, "--val-share", 0.5, *link)
    assert found["picture of more than 8 bits, or DICOM"] == [
        "a.dcm: DICOM",
        "b.png: more than 8 bits",
        "c.tif: more than 8 bits",
    ]
    assert found["image that cannot be read"][0].startswith("film.dcm: a film of several frames")
    written = {file.name: file for file in (tmp_path / "out" / "images").glob("*/*")}
    assert set(written) == {"a.png", "b.png", "c.png", "d.png"} and names(tmp_path / "out") == ["x", "y"]
    for name, file in written.items():
        original = next(images.glob(f"{file.stem}.*"))
        assert np.array_equal(cv2.imread(str(file)), read_image(original)), "what predict sees of the original"
        assert file.is_symlink() == (bool(link) and name == "d.png")
        assert decode(np.fromfile(file, np.uint8)).dtype == np.uint8 and not is_deep(file)
