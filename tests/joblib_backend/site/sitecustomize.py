"""What every interpreter that the tests start runs first: this folder is in PYTHONPATH."""

from loky_stand_in import stand_in_when_loaded

stand_in_when_loaded()
