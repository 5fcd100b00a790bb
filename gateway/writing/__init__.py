"""What a claim writes: its appends, what it has appended lately, and what it need not write again."""
