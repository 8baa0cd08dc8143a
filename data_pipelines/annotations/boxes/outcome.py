"""What became of the boxes of one image."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_pipelines.annotations.boxes.checks import CLASS_LEFT_OUT, MESSAGES, CheckedBox
from data_pipelines.annotations.boxes.edge_boxes import BoxState
from data_pipelines.annotations.boxes.readers.raw_boxes import ListedImage


@dataclass
class ImageBoxes:
    """entries: what lists the image. boxes: of all entries. code, message: why the image is
    rejected, '' where it is annotated.
    """

    entries: list[ListedImage] = field(default_factory=list)
    boxes: list[CheckedBox] = field(default_factory=list)
    code: str = ""
    message: str = ""

    @property
    def state(self) -> BoxState:
        """Of the image."""
        return "rejected" if self.code else "annotated"

    @property
    def used(self) -> list[CheckedBox]:
        """The boxes that can be trained on."""
        return [] if self.code else [box for box in self.boxes if not box.code]

    def fate_of(self, box: CheckedBox) -> tuple[str, str, str]:
        """The state, code and message of one of the boxes. A box that could be used stays unused
        where the image is rejected: for its reason, or other_box_rejected.
        """
        if box.code:
            state = "skipped" if box.code == CLASS_LEFT_OUT else "rejected"
            return state, box.code, MESSAGES.get(box.code, "")
        if not self.code:
            return "used", "", ""
        is_of_box = any(other.code == self.code for other in self.boxes)
        code = "other_box_rejected" if is_of_box else self.code
        return "rejected", code, MESSAGES.get(code, self.message)
