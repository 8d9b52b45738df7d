"""Arrow schemas of the tables on disk. Columns are only ever added, with `ROW_FORMAT` raised."""

from __future__ import annotations

import json

import pyarrow as pa

PROMPT_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("class_index", pa.int32(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("wnid", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("template", pa.string(), nullable=False),  # Jinja source; one of several in a mixture
        pa.field("background", pa.string()),  # null when the template has none
        pa.field("style", pa.string()),  # likewise
        pa.field("guidance_scale", pa.float64(), nullable=False),  # the image's own
        pa.field("seed", pa.int64(), nullable=False),  # of the image's noise
        pa.field("token_count", pa.int32(), nullable=False),  # CLIP's BPE with both end marks
        pa.field("truncated", pa.bool_(), nullable=False),  # more than CLIP's 77 tokens
    ]
)

ROW_FORMAT = 2
"""Of prompt tables and shards. A set keeps the one it was begun with; it changes no pixel, so it is in no hash."""

OK = "ok"
FAILED = "failed"
NSFW = "nsfw"
BLANK = "blank"
STATUSES = (OK, FAILED, NSFW, BLANK)
"""Where millions of rows are held, a status is its place here."""

IMAGE_TYPE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
"""The struct that `datasets` reads as an Image feature; bytes are null in a row that failed."""

IMAGE_SCHEMA = pa.schema(
    [
        *PROMPT_SCHEMA,
        pa.field("image", IMAGE_TYPE),
        pa.field("status", pa.string(), nullable=False),  # ok | failed | nsfw | blank
        pa.field("reason", pa.string()),  # null when ok; one line
        pa.field("width", pa.int32()),  # pixels
        pa.field("height", pa.int32()),
        pa.field("sha256", pa.string()),  # of the encoded bytes
        pa.field("phash", pa.string()),  # perceptual hash, 16 hex digits; few bits apart means near-duplicates
        pa.field("pixel_std", pa.float32()),  # 0..255; near 0 means a blank image
        pa.field("nsfw_score", pa.float32()),  # above 0 means flagged; null when no checker gives one
        pa.field("seconds", pa.float32(), nullable=False),  # engine time of its batch / rows in it
    ],
    # `datasets.load_dataset("parquet", …)` reads the image column's type from this key; the plain ones it infers.
    metadata={b"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}}).encode()},
)
