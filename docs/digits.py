"""Write scikit-learn's handwritten digits as a folder of pictures: python docs/digits.py FOLDER"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

if __name__ == "__main__":
    folder, digits = Path(sys.argv[1]), load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        part = "test" if number % 5 == 0 else "train"
        path = folder / part / NAMES[label] / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(255 / 16 * image)).save(path)  # 8x8 pixels, 0 to 16
