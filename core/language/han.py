"""The one range of Chinese characters, for classes of regular expressions (Unicode 16)."""

# Extension A, the basic block, compatibility ideographs, and the planes of the other extensions.
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
