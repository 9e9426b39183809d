"""Images: decoded, converted to the channels and the range wanted, cropped, and augmented."""
