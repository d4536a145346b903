"""Image and video files, optical flow, boxes and drawing. Most of it needs the extra [video].

A video is a uint8 tensor [T, H, W, 3], RGB; a picture is a uint8 array [H, W, 3]. A box is xyxy, (x1, y1, x2, y2) in
pixels, with x2 and y2 the edges just past the last pixel, unless a name says otherwise.
"""

from amstel.media import boxes, draw, flow, formats, images, localize, points, reading, scores, writing

__all__ = ["boxes", "draw", "flow", "formats", "images", "localize", "points", "reading", "scores", "writing"]
