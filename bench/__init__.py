"""Measurements: the product beside a baseline, in one run; ratios count, absolute figures do not."""
