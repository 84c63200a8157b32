"""Pictures on a GPU: resized, converted and cropped there, so that no picture makes a round trip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from syncnet.faces.crops import CROP_SIZE, PADDING, crop_bounds

if TYPE_CHECKING:
    from syncnet.media.pictures import Picture

BLACK, MIDDLE = 16.0, 128.0  # of brightness and colour in limited range
# BT.601 in limited range: brightness, and what the two colours add to blue, green and red
GAIN = 255 / 219
BGR_OF_U, BGR_OF_V = (2.0172, -0.3918, 0.0), (0.0, -0.8130, 1.5960)


@dataclass(frozen=True)
class DevicePicture:
    """A ``Picture`` on a device.

    Attributes:
        brightness: 1 x 1 x H x W tensor, uint8.
        colours: 1 x 2 x H/2 x W/2 tensor, uint8.
    """

    brightness: torch.Tensor
    colours: torch.Tensor

    @classmethod
    def of(cls, picture: Picture, device: torch.device) -> DevicePicture:
        """Copy a ``Picture`` to a device."""
        height, width = picture.height, picture.width
        planes = torch.from_numpy(picture.planes).to(device, non_blocking=True).flatten()
        brightness, colours = planes.split([height * width, height * width // 2])
        return cls(brightness.view(1, 1, height, width), colours.view(1, 2, height // 2, width // 2))

    @property
    def height(self) -> int:
        return self.brightness.shape[2]

    @property
    def width(self) -> int:
        return self.brightness.shape[3]

    @torch.inference_mode()
    def rgb(self, width: int, height: int) -> torch.Tensor:
        """Return the picture at another size, by linear interpolation as ``Picture.resized`` does.

        Args:
            width, height: even numbers of pixels.

        Returns:
            H x W x 3 tensor, uint8, RGB.
        """
        brightness = rounded(scaled(self.brightness.float(), height, width))
        colours = rounded(scaled(self.colours.float(), height // 2, width // 2))
        return as_bgr(brightness, colours)[0].permute(1, 2, 0).flip(-1).to(torch.uint8)

    @torch.inference_mode()
    def crop(self, *, s: float, x: float, y: float, crop_scale: float) -> torch.Tensor:
        """Cut a face out, as ``crops.crop_face`` does.

        Returns:
            224 x 224 x 3 tensor, uint8, BGR.
        """
        bounds = crop_bounds(height=self.height, width=self.width, s=s, x=x, y=y, crop_scale=crop_scale)
        top, bottom, left, right = bounds.inside
        if top < bottom and left < right:
            y0, x0, y1, x1 = top - top % 2, left - left % 2, bottom + bottom % 2, right + right % 2
            brightness = self.brightness[:, :, y0:y1, x0:x1].float()
            colours = self.colours[:, :, y0 // 2 : y1 // 2, x0 // 2 : x1 // 2].float()
            part = as_bgr(brightness, colours)[:, :, top - y0 : bottom - y0, left - x0 : right - x0]
            above, before = bounds.corner
            below, after = bounds.height - above - (bottom - top), bounds.width - before - (right - left)
            image = F.pad(part, (before, after, above, below), value=PADDING)
        else:
            image = self.brightness.new_full((1, 3, bounds.height, bounds.width), PADDING).float()
        return rounded(scaled(image, CROP_SIZE, CROP_SIZE))[0].permute(1, 2, 0).to(torch.uint8)


def scaled(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize N x C x H x W by linear interpolation between pixel centres, as OpenCV does."""
    return F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)


def rounded(values: torch.Tensor) -> torch.Tensor:
    """Round to what 8 bits can hold."""
    return values.round().clamp(0, 255)


def as_bgr(brightness: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Convert limited-range BT.601 to N x 3 x H x W, BGR, whole numbers from 0 to 255.

    Args:
        brightness: N x 1 x H x W, float32.
        colours: N x 2 x H/2 x W/2, float32.
    """
    full = F.interpolate(colours - MIDDLE, scale_factor=2.0, mode="nearest")
    mix = full.new_tensor([BGR_OF_U, BGR_OF_V])
    added = torch.einsum("nchw,cb->nbhw", full, mix)
    return rounded((brightness - BLACK).clamp(min=0) * GAIN + added)
