"""Learning from rewards: prompts, completions and what they are worth."""
