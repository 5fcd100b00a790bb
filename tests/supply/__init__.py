"""What Holdfast is made of, under which licences, and what is known against it: docs/supply.md."""
