"""Conversations: roles, forms of messages, tables with one message a row, exports of chat programs."""
