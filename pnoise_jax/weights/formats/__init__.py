"""What a file of weights is: npz, safetensors, and the descriptions that accompany them.

`detect` opens a file and finds out its format from the content. Each format gives an `ArrayFile`:
names, shapes, and how to read one array. `model_info` reads what the file's metadata, or a
config.json beside it, says about the model. `hub` downloads from the Hugging Face hub and
`gcs` from Google Cloud Storage; `places` tells these from paths.
"""
