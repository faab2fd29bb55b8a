"""What every interpreter that the tests start runs first: this folder is in PYTHONPATH."""

from stand_in import stand_in_when_asked

stand_in_when_asked()
