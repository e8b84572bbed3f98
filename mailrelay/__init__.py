"""An email relay that fails over between providers and does not lose mail."""

__version__ = "0.1.0"
