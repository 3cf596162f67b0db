"""These tests need torch, safetensors and nibabel: they fail without them.
SPDX-License-Identifier: MIT
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
