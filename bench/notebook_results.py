"""The table that the notebook published: points, learning rate, mIoU on its validation split. One run a row."""

PUBLISHED = [
    (10, 1e-4, 0.5480),
    (50, 1e-4, 0.5712),
    (100, 1e-4, 0.5689),
    (200, 1e-4, 0.5830),
    (100, 1e-3, 0.5257),
    (100, 1e-4, 0.5839),
    (100, 1e-5, 0.5518),
]
"""The count was compared at 1e-4, the rate at 100 points; so 100 points at 1e-4 ran twice."""
