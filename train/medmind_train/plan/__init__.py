"""What a training run would need before anything is downloaded: memory, disk and time, from sizes alone. No torch."""
