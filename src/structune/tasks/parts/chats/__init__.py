"""Conversations: rows that hold them, templates that write them down, and the tokens that are learned."""
