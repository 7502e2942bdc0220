"""Models behind other servers: what is asked of them, what is believed of what they answer, and what it cost."""
