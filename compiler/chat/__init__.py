"""What is known of conversations: roles, turns, tables with one turn a row, exports of chat programs."""
