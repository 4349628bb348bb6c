"""What a person sees and types: lines, commands, answers while they stream."""
