# fr_text: what is read from a model file apart from its weights, and text to tokens and back. The coordinator links
# this library without the engine.
fr_library(fr_text
    index.c file_map.c gguf.c model_file.c model_meta.c meta_writer.c
    safetensors.c hf_folder.c hf_json.c hf_config.c hf_rope.c hf_tensors.c hf_tokenizer.c hf_pretokenizer.c
    utf8.c pretokenize.c vocab.c bpe.c tokenizer.c tokenizer_load.c tokenizer_blob.c chat.c draft_vocab.c
    draft_weights.c
    LINK fr_base fr_kernels PkgConfig::libpcre2-8 PkgConfig::libutf8proc PkgConfig::libcjson m)
