"""The files of MPA, in which a large model writes and checks questions for a small one.

Pseudo-annotations (PA), parity identification (PI), evaluations and the training files made of them. Their images
are named by absolute paths of the machine they were made on; below an image root they are found again by the part of
the path that still holds. The texts are taken as they are, a question mark that the publisher dropped included.
"""

from collections.abc import Mapping
from typing import Any

from data_pipeline.sources.containers import Entries
from data_pipeline.sources.forms import Form, Options, question_and_answer, require, text_of
from data_pipeline.sources.llava import Llava
from vlm_jax import locations
from vlm_jax.errors import InputError

# Question, answer, and what is kept besides them, of each kind of file.
KINDS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "PA": ("predicted_question", "predicted_answer", ("ground_truth_question", "ground_truth_answer")),
    "PI": ("PA_question", "PA_answer", ("predictions",)),
    "evaluation": ("GT_question", "GT_answer", ("predictions",)),
}


class MovedImages:
    """Images that are named by paths of another machine, found again below an image root."""

    def __init__(self, root: str):
        """
        Args:
          root: as `locations.absolute` gives it.
        """
        self._root = root
        self._folders: dict[str, list[str]] = {}

    def find(self, path: str) -> str:
        """The longest end of the path that exists below the image root, or its last name if none does.

        Which folders exist is looked up once for each folder that the data names, not once for each image.
        """
        folder, _, name = path.replace("\\", "/").rpartition("/")
        if folder not in self._folders:
            steps = [step for step in folder.split("/") if step not in ("", ".", "..")]
            ends = ["/".join(steps[start:]) for start in range(len(steps))]
            self._folders[folder] = [end for end in ends if locations.is_folder(locations.join(self._root, end))]
        for end in self._folders[folder]:
            if locations.is_file(locations.join(self._root, f"{end}/{name}")):
                return f"{end}/{name}"
        return name


class Mpa(Form):
    """MPA's files; `provenance` keeps the ground truth of PA's and the predictions of the others."""

    id_keys = ("question_id", "id")
    images_beside = False

    def __init__(self, entries: Entries, options: Options):
        super().__init__(entries, options)
        self._images = MovedImages(options.root) if options.root_given else None
        self._llava = None
        if any("conversations" in value for value in entries.objects()):
            self._llava = Llava(entries, options)
        else:
            require(entries, ("image_path",), "mpa")
            require(entries, [question for question, _, _ in KINDS.values()], "mpa")

    def convert(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._llava is not None:
            image = entry.get("image")
            found = {"image": self._find(image)} if isinstance(image, str) and image else {}
            return {"task": "mpa", **self._llava({**entry, **found})}
        errors: list[str] = []
        kind = next((names for names in KINDS.values() if names[0] in entry), KINDS["PA"])
        question = text_of(entry, kind[0], "question", errors)
        answer = text_of(entry, kind[1], "answer", errors)
        path = text_of(entry, "image_path", "image's path", errors)
        if errors:
            raise InputError(errors)
        provenance = {key: entry[key] for key in kind[2] if key in entry}
        messages = question_and_answer(question, [self._find(path)], answer if self.options.training else None)
        return {"answers": [answer], "task": "mpa", "provenance": provenance, "messages": messages}

    def _find(self, path: str) -> str:
        return path if self._images is None else self._images.find(path)
