"""Pictures on disk as arrays of one size: decoding, checking, reading on demand.

Shape suffixes: `image_hwc` and `images_nhwc` are uint8 with height, width and the
three channels red, green, blue last.
"""

import errno
import io
import os
import stat
import struct
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike
from PIL import ExifTags, Image, ImageOps

from memejax.errors import UserError

# 8000 x 6250: above any meme, and 150 MB once decoded.
MAX_PIXELS = 50_000_000
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
RESIZES = ("square", "shorter", "pad", "square_bicubic", "shorter_bicubic")
_BICUBIC = "_bicubic"
# Longest side over the shorter one that is resized whole before its centre is cropped.
_MOST_CROPPED = 32
# Raised by Pillow for EXIF blocks with random bytes changed.
_EXIF_ERRORS = (
    AttributeError,
    KeyError,
    OSError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)

Progress = Callable[[int, int], None]
# A path, or the content of a file.
Picture = str | bytes


class ImageError(UserError):
    """An unusable picture: `path` and a plain `reason`."""

    def __init__(self, path: str, reason: str):
        # Both go to args, so that the error survives pickling out of a worker.
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class _QuietPillow:
    """Silence Pillow's warnings while any thread is inside.

    `warnings.catch_warnings` swaps state of the whole process, so threads that enter
    and leave it in turn restore each other's filters. Here only the first thread to
    enter saves them, and only the last one to leave restores them.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._inside = 0
        self._saved = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                for category in (UserWarning, RuntimeWarning):
                    warnings.filterwarnings("ignore", category=category, module="PIL")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.__exit__(None, None, None)


_quiet_pillow = _QuietPillow()


@contextmanager
def _opened(picture: Picture, max_pixels: int) -> Iterator[Image.Image]:
    """Yield the picture with its header read; raise ImageError for any failure."""
    path = picture if isinstance(picture, str) else "<bytes>"
    try:
        with _quiet_pillow, _file(picture) as file, Image.open(file) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(
                    path,
                    f"is too large: {width} x {height} = {width * height} pixels, "
                    f"expected at most {max_pixels}",
                )
            yield image
    except (ImageError, MemoryError):
        raise
    except FileNotFoundError:
        raise ImageError(path, "is missing") from None
    except Image.UnidentifiedImageError:
        raise ImageError(path, "is not an image that Pillow can read") from None
    except Image.DecompressionBombError as error:
        # Pillow's own limit, checked before the size is available.
        raise ImageError(
            path, f"is too large (expected at most {max_pixels} pixels): {error}"
        ) from None
    # Pillow's readers pass on any error of parsing a damaged file: OSError,
    # SyntaxError, struct.error, zlib.error, IndexError, OverflowError...
    except Exception as error:
        # Out of file handles: not a fault of this file.
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        cut = "truncated" in str(error) or isinstance(error, EOFError)
        what = "is truncated" if cut else "cannot be read"
        text = f"{what}: {type(error).__name__}: {error}"
        raise ImageError(path, text) from error


def _file(picture: Picture) -> BinaryIO:
    """Open a picture that is not empty; raise ImageError or FileNotFoundError."""
    if isinstance(picture, str):
        status = os.stat(picture)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(picture, "is not a file")
        if status.st_size:
            return open(picture, "rb")
    elif picture:
        return io.BytesIO(picture)
    name = picture if isinstance(picture, str) else "<bytes>"
    raise ImageError(name, "is empty (zero bytes)")


def read_bytes(path: str) -> bytes:
    """Read a picture's file without decoding it.

    Raises:
        ImageError: if it is missing, empty, not a file, or cannot be read.
    """
    try:
        with _file(path) as file:
            return file.read()
    except FileNotFoundError:
        raise ImageError(path, "is missing") from None
    except OSError as error:
        raise ImageError(path, f"cannot be read: {error.strerror}") from None


def load(picture: Picture, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode one picture at its own size.

    Any mode becomes RGB; transparent parts become white; EXIF rotation is applied; an
    animation gives its first frame.

    Args:
        picture: path of a picture, or the content of its file.
        max_pixels: the largest width x height allowed, by the header.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ImageError: if it is missing, empty, not an image, truncated, or too large.
    """
    with _opened(picture, max_pixels) as image:
        return np.asarray(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    """Return an opened picture in RGB, turned as its EXIF block says."""
    image.load()
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except _EXIF_ERRORS:
        # A damaged EXIF block leaves the pixels usable.
        pass
    return _to_rgb(image)


def open_size(path: str, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Read the size of a picture from its header alone.

    Args:
        path: a picture.
        max_pixels: the largest width x height allowed.

    Returns:
        (width, height) as shown, after any EXIF rotation.

    Raises:
        ImageError: if it is missing, empty, not an image, or too large.
    """
    with _opened(path, max_pixels) as image:
        width, height = image.size
        # Orientations from 5 on are turned by 90 degrees.
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return (height, width) if turned else (width, height)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB; transparent parts become white."""
    if image.mode.startswith("I"):
        # 16-bit grey, in Pillow "I;16" or "I". Rounded to 8 bits here: Pillow's own
        # conversion of "I" turns everything above 255 white.
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(
            ((grey * 255 + 32767) // 65535).astype(np.uint8)
        ).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _target(width: int, height: int, size: int, resize: str) -> tuple[int, int]:
    """Return (width, height) after resizing, before crop or padding."""
    resize = resize.removesuffix(_BICUBIC)
    if resize == "square":
        return size, size
    if resize == "shorter":
        # Rounded down as torchvision's Resize does, so that features agree with it.
        short = min(width, height)
        return max(size, width * size // short), max(size, height * size // short)
    long = max(width, height)
    return (
        max(1, round(width * size / long)),
        max(1, round(height * size / long)),
    )


def _check_options(size: int, resize: str) -> None:
    if size < 1:
        raise ValueError(f"size is {size}, expected at least 1")
    if resize not in RESIZES:
        raise ValueError(f"resize is {resize!r}, expected one of {', '.join(RESIZES)}")


def decode(
    path: Picture,
    *,
    size: int,
    resize: str = "square",
    max_pixels: int = MAX_PIXELS,
    draft: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Decode one picture to size x size, with antialiasing; see `load`.

    Args:
        path: path of a picture, or the content of its file.
        size: pixels along each side of the result.
        resize: "square" stretches to size x size; "shorter" resizes the shorter side
            to `size` and crops the centre; "pad" resizes the longer side to `size`
            and fills with zeros on the right or at the bottom. These are bilinear;
            "square_bicubic" and "shorter_bicubic" (as CLIP) are bicubic.
        max_pixels: the largest width x height allowed, by the header.
        draft: whether to decode a JPEG at 1/2, 1/4 or 1/8 if that is still at least
            as large as needed: faster, with slightly different pixels.

    Returns:
        (image_hwc uint8 [size, size, 3], int32 [2]: height and width before padding).

    Raises:
        ImageError: if it is missing, empty, not an image, truncated, or too large.
    """
    _check_options(size, resize)
    with _opened(path, max_pixels) as image:
        if draft:
            image.draft(None, _target(*image.size, size=size, resize=resize))
        return fit(_upright(image), size=size, resize=resize)


def fit(
    rgb: Image.Image, *, size: int, resize: str = "square"
) -> tuple[np.ndarray, np.ndarray]:
    """Resize a picture in RGB to size x size; arguments and result as in `decode`."""
    width, height = _target(*rgb.size, size=size, resize=resize)
    is_bicubic = resize.endswith(_BICUBIC)
    kernel = Image.Resampling.BICUBIC if is_bicubic else Image.Resampling.BILINEAR
    if not resize.startswith("shorter"):
        rgb = rgb.resize((width, height), kernel)
    elif is_bicubic and width * height <= _MOST_CROPPED * size**2:
        # In two steps, as the reference: its values are cut at black and white between
        # rows and columns, whose order depends on the size.
        left, top = (width - size) // 2, (height - size) // 2
        rgb = rgb.resize((width, height), kernel)
        rgb = rgb.crop((left, top, left + size, top + size))
    else:
        # Cropped in the picture's own coordinates: the same pixels as resizing first,
        # but a 1 x 1,000,000 strip does not grow by `size`.
        left = round((width - size) / 2) * rgb.width / width
        top = round((height - size) / 2) * rgb.height / height
        right = left + size * rgb.width / width
        bottom = top + size * rgb.height / height
        # Rounding may exceed the edge by 1e-13, which Pillow refuses.
        box = (left, top, min(right, rgb.width), min(bottom, rgb.height))
        rgb = rgb.resize((size, size), kernel, box=box)
    width, height = rgb.size
    image_hwc = np.zeros((size, size, 3), np.uint8)
    image_hwc[:height, :width] = np.asarray(rgb)
    return image_hwc, np.array([height, width], np.int32)


class LazyImages:
    """Pictures on disk, indexed like an array uint8 [n, size, size, 3].

    It holds paths and options only, so it is cheap to pickle into worker processes.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        size: int,
        resize: str = "square",
        max_pixels: int = MAX_PIXELS,
        draft: bool = False,
    ):
        _check_options(size, resize)
        self.paths = list(paths)
        self.size = size
        self.resize = resize
        self.max_pixels = max_pixels
        self.draft = draft

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: ArrayLike) -> np.ndarray:
        """Decode the pictures at `index` int [b] to uint8 [b, size, size, 3]."""
        return self.load(index)[0]

    def load(self, index: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Decode some of the pictures.

        Args:
            index: int [b], each in [0, n).

        Returns:
            (images_nhwc uint8 [b, size, size, 3], sizes int32 [b, 2], see `decode`).

        Raises:
            ImageError: see `decode`, for the first unusable picture.
            ValueError: if the index is not a vector of integers.
            IndexError: for an index outside [0, n).
        """
        places = np.asarray(index)
        if places.ndim != 1 or not (places.size == 0 or places.dtype.kind in "iu"):
            raise ValueError(
                f"index has shape {places.shape} and type {places.dtype}, "
                "expected a vector of integers"
            )
        if places.size and not (0 <= places.min() and places.max() < len(self)):
            raise IndexError(
                f"index spans {places.min()} to {places.max()}, "
                f"expected 0 to {len(self) - 1}"
            )
        images_nhwc = np.zeros((len(places), self.size, self.size, 3), np.uint8)
        sizes = np.zeros((len(places), 2), np.int32)
        for row, place in enumerate(places):
            images_nhwc[row], sizes[row] = decode(
                self.paths[int(place)],
                size=self.size,
                resize=self.resize,
                max_pixels=self.max_pixels,
                draft=self.draft,
            )
        return images_nhwc, sizes


def for_each(
    function: Callable[[int], None],
    count: int,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[int, ImageError]:
    """Call function(0) ... function(count - 1) in threads; collect ImageErrors.

    Args:
        function: called once with each number.
        count: of the calls.
        threads: one per core if None.
        progress: called with (done, count) after each of them.

    Returns:
        ImageErrors that were raised, by number.
    """

    def guarded(place: int) -> ImageError | None:
        try:
            function(place)
        except ImageError as error:
            return error
        return None

    errors: dict[int, ImageError] = {}
    with _quiet_pillow, ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        try:
            for place, error in enumerate(pool.map(guarded, range(count))):
                if error is not None:
                    errors[place] = error
                if progress is not None:
                    progress(place + 1, count)
        except BaseException:
            # Do not wait for thousands of queued pictures after an interrupt.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return errors


def decode_all(
    paths: Sequence[Picture],
    *,
    size: int,
    resize: str = "square",
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    into: np.ndarray | None = None,
    draft: bool = False,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray, dict[int, ImageError]]:
    """Decode all pictures in threads; one that fails does not stop the others.

    Args:
        paths: n pictures, or the contents of their files.
        size: pixels along each side, as in `decode`.
        resize: "square", "shorter" or "pad", as in `decode`.
        max_pixels: the largest width x height allowed.
        threads: number of decoding threads; one per core if None.
        into: uint8 [n, size, size, 3] to fill, for example a memory map; a new array
            if None.
        draft: as in `decode`.
        progress: called with (done, n) after each picture.

    Returns:
        (images_nhwc uint8 [n, size, size, 3], sizes int32 [n, 2], errors by index).
        A picture with an error is all zeros and its size is (0, 0).

    Raises:
        ValueError: if `into` has another shape or dtype.
    """
    _check_options(size, resize)
    shape = (len(paths), size, size, 3)
    if into is not None and (into.shape != shape or into.dtype != np.uint8):
        raise ValueError(
            f"into is {into.dtype} {into.shape}, expected uint8 {shape}",
        )
    images_nhwc = np.zeros(shape, np.uint8) if into is None else into
    sizes = np.zeros((len(paths), 2), np.int32)

    def decode_one(place: int) -> None:
        try:
            images_nhwc[place], sizes[place] = decode(
                paths[place],
                size=size,
                resize=resize,
                max_pixels=max_pixels,
                draft=draft,
            )
        except ImageError:
            images_nhwc[place] = 0
            raise

    errors = for_each(decode_one, len(paths), threads=threads, progress=progress)
    return images_nhwc, sizes, errors


def check_all(
    paths: Sequence[Picture],
    *,
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[int, ImageError]:
    """Read every picture to its last byte, as cheaply as possible.

    Args:
        paths: n pictures, or the contents of their files.
        max_pixels: the largest width x height allowed.
        threads: number of reading threads; one per core if None.
        progress: called with (done, n) after each picture.

    Returns:
        Errors by index into `paths`; empty if all pictures are usable.
    """

    def check_one(place: int) -> None:
        with _opened(paths[place], max_pixels) as image:
            # An eighth of the size: the coded stream of a JPEG is still read to its
            # end, only the inverse transform is reduced.
            image.draft("L", (1, 1))
            image.load()

    return for_each(check_one, len(paths), threads=threads, progress=progress)
