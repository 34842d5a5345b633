"""The encoder and its parts; knows neither objectives, data nor training."""
