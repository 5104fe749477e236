"""What every layer may use: argument checks, files, memory, messages, torch settings, processes."""
