"""Whatever a test has written is sound when it has ended: the fixtures of ``tests.pages``."""

from tests.pages.conftest import _sound as _sound
from tests.pages.conftest import all_kinds as all_kinds
from tests.pages.conftest import damaged as damaged
