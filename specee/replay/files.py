"""Traces as files: one .npz, read without executing anything, written whole or not at all."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from specee.errors import CheckpointError, SpeceeError
from specee.files import replace_whole
from specee.policies import Latency
from specee.replay.trace import Text, Trace
