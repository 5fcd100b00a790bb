"""Measurements of the product and of a baseline in the same run. The ratios are significant; the absolute
figures are not."""
