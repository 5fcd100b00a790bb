"""What a process tells of itself: metrics, traces, log lines."""
