"""Names of the output files: those of the images, made distinct."""

from __future__ import annotations

from pathlib import Path

from gradnorm_plugin.predict.sources import Frame


class OutputNames:
    """A name, without suffix, for the outputs of each image or video; no two share one.

    `a/1.jpg` gives `1`; then `b/1.jpg` and `a/1.png` give `1-2` and `1-3`. A video `v.mp4` gives `v`, its 7th
    frame `v_7`.
    """

    def __init__(self) -> None:
        self._of: dict[tuple[str, bool], str] = {}
        self._taken: set[str] = set()
        self.renamed = 0

    def stem(self, frame: Frame) -> str:
        """The name of the picture or the whole video."""
        moving = frame.number is not None
        key = (frame.path, moving)
        if key not in self._of:
            is_file = "://" in frame.path or Path(frame.path).is_file()  # of streams the names hold no address
            plain = Path(frame.path).stem if not moving or is_file else Path(frame.path).name
            name, count = plain, 1
            while self._is_taken(name, moving):
                count += 1
                name = f"{plain}-{count}"
            self.renamed += name != plain
            self._taken.add(name.casefold())  # 1.jpg and 1.JPG are one file on Windows and macOS
            self._of[key] = name
        return self._of[key]

    def frame(self, frame: Frame) -> str:
        """The name of this very image: of a video, with the frame's number."""
        return self.stem(frame) if frame.number is None else f"{self.stem(frame)}_{frame.number}"

    def _is_taken(self, name: str, moving: bool) -> bool:
        name = name.casefold()
        if name in self._taken:
            return True
        # A picture `v_7.jpg` stands in the way of the 7th frame of `v.mp4`; videos come after pictures.
        return moving and any(other.startswith(f"{name}_") and other[len(name) + 1 :].isdigit() for other in self._taken)
