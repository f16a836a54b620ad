"""Who may open a mailbox. Three outcomes: yes, no, and could not tell."""
