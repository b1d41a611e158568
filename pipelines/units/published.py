"""The files that textlesslib's models are published as: facts of its checkpoint manager, as tables.

Source: textless/checkpoint_manager/__init__.py and textless/__init__.py of github.com/facebookresearch/textlesslib.
"""

from __future__ import annotations

BASE = "https://dl.fbaipublicfiles.com"
_EXPRESSO = "textless_nlp/expresso/checkpoints"
_TWIST = "textless_nlp/twist/speech_tokenizer"
_GSLM = "textless_nlp/gslm/hubert"

HUBERT = (
    (
        "hubert-base-ls960",
        "hubert/hubert_base_ls960.pt",
        "1703cf8d2cdc76f8c046f5f6a9bcd224e0e6caf4744cad1a1f4199c32cac8c8d",
    ),
    (
        "mhubert-base-vp_en_es_fr",
        "hubert/mhubert_base_vp_en_es_fr_it3.pt",
        "23527cd6311a6617bfa199f574e2eed478cd6a58a634f4007165c10ec0019832",
    ),
    (
        "mhubert-base-vp_mls_cv_8lang",
        "hubert/mhubert_base_vp_mls_cv_8lang_it3.pt",
        "fa82eaccb557465f4732662e3a744c30c953059147ac6a4c92f1f3e0daeda61e",
    ),
    (
        "mhubert-base-25hz",
        f"{_TWIST}/mhubert_base_25hz_cp_mls_cv_sp_fisher.pt",
        "edf0f5be2581a568a236aeb2781a5607c5af25806e12f40f7f2391e861fe3cf0",
    ),
)
"""(name, path under BASE, SHA-256); the file is kept under the last part of the path."""

DENSE = {
    "hubert-base-ls960": ("hubert-base-ls960", 6),
    "hubert-base-ls960-layer-9": ("hubert-base-ls960", 9),
    "mhubert-base-vp_en_es_fr": ("mhubert-base-vp_en_es_fr", 11),
    "mhubert-base-vp_en_es_fr-layer-11": ("mhubert-base-vp_en_es_fr", 11),
    "mhubert-base-vp_mls_cv_8lang": ("mhubert-base-vp_mls_cv_8lang", 12),
    "mhubert-base-25hz": ("mhubert-base-25hz", 11),
}
"""Name of a dense model → the model whose file it is, and the layer that gives the features (the first is 1)."""

HOPS = {"mhubert-base-25hz": 640}
"""Samples a frame at 16 kHz, where it is not 320."""

QUANTIZERS = (
    (
        "hubert-base-ls960-kmeans-50",
        f"{_GSLM}/km50/km.bin",
        "hubert_base_ls960_km50.pt",
        "d01a7d5bc2c54b7b5f25f321ba525b4d230b06e3927f90bad0394198bc89f494",
    ),
    (
        "hubert-base-ls960-kmeans-100",
        f"{_GSLM}/km100/km.bin",
        "hubert_base_ls960_km100.pt",
        "f14a3104615485381fc489701d6761c9abbdbb0d43607cf55518a1e2891023fe",
    ),
    (
        "hubert-base-ls960-kmeans-200",
        f"{_GSLM}/km200/km.bin",
        "hubert_base_ls960_km200.pt",
        "b3c46c9cdd1707ad852dd53c359aa73942e79d53c432a9a8a419ed046408024b",
    ),
    (
        "hubert-base-ls960-kmeans-500",
        f"{_GSLM}/km500/km.bin",
        "hubert_base_ls960_km500.pt",
        "411c8668e1314751404f58636f935fc73540a6793890435da4a8ffadf157398e",
    ),
    (
        "mhubert-base-vp_en_es_fr-layer-11-kmeans-1000",
        "hubert/mhubert_base_vp_en_es_fr_it3_L11_km1000.bin",
        "mhubert_base_vp_en_es_fr_it3_L11_km1000.bin",
        "c70f5416c38044d0c20e33fdeedf4533974a8ac4029985cdef3b755038381a0b",
    ),
    (
        "hubert-base-ls960-layer-9-kmeans-500",
        "hubert/hubert_base_ls960_L9_km500.bin",
        "hubert_base_ls960_L9_km500.pt",
        "4450dcbc90aa7d0553306a4b0fafef35c9b3c840468f02969273dfbb9db89a23",
    ),
    (
        "hubert-base-ls960-layer-9-kmeans-expresso-2000",
        f"{_EXPRESSO}/hubert_base_ls960_L9_km2000_expresso.bin",
        "hubert_base_ls960_L9_km2000_expresso.pt",
        "ae73e3cc7ea0426faf43c8bb67fc3846a0f8708232526d045a101836e8c7929f",
    ),
    (
        "mhubert-base-vp_mls_cv_8lang-kmeans-2000",
        "hubert/mhubert_base_vp_mls_cv_8lang_it3_L12_km2000.bin",
        "mhubert_base_vp_mls_cv_8lang_it3_L12_km2000.pt",
        "05de230870427dcdce334d29922ccce354c7e7d0574edc645f5daed47b1ccc18",
    ),
    (
        "mhubert-base-vp_mls_cv_8lang-kmeans-expresso-2000",
        f"{_EXPRESSO}/mhubert_base_vp_mls_cv_8lang_it3_L12_km2000_expresso.bin",
        "mhubert_base_vp_mls_cv_8lang_it3_L12_km2000_expresso.pt",
        "bda2dbf5fe42bf59359799b281498a9d7fd0a9ec703d6dc54a4a4a0ff70a4e22",
    ),
    (
        "mhubert-base-25hz-kmeans-500",
        f"{_TWIST}/mhubert_base_25hz_cp_mls_cv_sp_fisher_L11_km500.bin",
        "mhubert_base_25hz_cp_mls_cv_sp_fisher_L11_km500.bin",
        "03cc04a9c24fec4285e73e709c485756d8f116aa8e724eac555de6a7cf8d28ad",
    ),
)
"""(name, path under BASE, file name in textlesslib's folder, SHA-256)."""

EXPRESSO_VOCODERS = (
    (
        "hubert-base-ls960-layer-9-kmeans-500-hifigan",
        "hubert_base_ls960_L9_km500",
        "d50f4704e961c29cb386924ef32cd0c3a4d1089a3f9be856f8a3b6dcfdd6147a",
        "31e65ef5e100cb43de08f2c8d225496ace1ed87a49fcb8ee44bd6805f079b1f0",
    ),
    (
        "hubert-base-ls960-layer-9-kmeans-expresso-2000-hifigan",
        "hubert_base_ls960_L9_km2000_expresso",
        "b892fdcca889f4bc6d7f0a0f407ae5d01eca8aaa66b9be333ef33a1c50f2ef52",
        "73932563cedc43cd1dcddfab36ce3b2c3cb76eef3423d25d1fb536ce1ec513bb",
    ),
    (
        "mhubert-base-vp_mls_cv_8lang-kmeans-2000-hifigan",
        "mhubert_base_vp_mls_cv_8lang_it3_L12_km2000",
        "0d160c97519d3ed644e2ec636581b79e56767d60325308849fbb389a494c1466",
        "73932563cedc43cd1dcddfab36ce3b2c3cb76eef3423d25d1fb536ce1ec513bb",
    ),
    (
        "mhubert-base-vp_mls_cv_8lang-kmeans-expresso-2000-hifigan",
        "mhubert_base_vp_mls_cv_8lang_it3_L12_km2000_expresso",
        "8d1585f20edd9b0982f80acbb387a892adf19e4aa719b8dea795c8fa96285cbc",
        "73932563cedc43cd1dcddfab36ce3b2c3cb76eef3423d25d1fb536ce1ec513bb",
    ),
)
"""(name, what the files' names end with, SHA-256 of the generator, of its configuration)."""

EXPRESSO_SPEAKERS = "2efabb7a4ad786da34fe6fbe99c3906b7abd40b2e01c81b7efde76142ae3d552"
EXPRESSO_STYLES = "a6f63206518448277c63c3a251ac13484784829cf2e1b0a23b0860dd32543520"
"""SHA-256 of speakers.txt and styles.txt, the same for all four."""

TWIST_VOCODER = (
    "mhubert-base-25hz-kmeans-500-hifigan",
    (f"{_TWIST}/hifigan_lj_mhubert_base_25hz.pt", "d88224e95c501e2cd59a6e4014753169cfe060fb7ade3cc0da03c809fef73b79"),
    (
        f"{_TWIST}/hifigan_lj_mhubert_base_25hz_config.json",
        "116dc39be4970cd393e562acd0a0ec70a86aaba7e9ca469b8b836cb3fe46afc7",
    ),
)
"""Name; path under BASE and SHA-256 of the generator, and of its configuration. One voice (LJ)."""

EXPRESSO = _EXPRESSO
