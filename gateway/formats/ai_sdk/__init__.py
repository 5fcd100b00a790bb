"""Vercel AI SDK's UI message stream."""
