"""The file formats of weights, npz and safetensors, and the descriptions that accompany them.

`detect` opens a file and detects its format from the content. Each format returns an `ArrayFile`:
names, shapes, and how to read one array. `model_info` reads what the file's metadata, or a
config.json in the same directory, says about the model. `hub` downloads from the Hugging Face hub
and `gcs` from Google Cloud Storage; `places` distinguishes these from paths.
"""
