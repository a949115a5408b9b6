"""A few raw lines of each competition, written down by hand from its files and never by our own encoder.

Headers and quirks are literal; values are made up. Images are noise of 32 pixels under the competition's own names.
"""

# ruff: noqa: E501 (raw lines of other people's files)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Miniature:
    """One competition in small.

    Attributes:
        files: the text of each CSV, JSON or class file by its path.
        images: the paths of all images; some names ask for a quirk, see `_draw`.
        header: the submission's first line.
        keys: the first cell of each row of the submission, in its order.
        cell: a regular expression that all other cells match.
        folder: of test images, given as `--images`.
        overrides: settings that only fewer rows need.
    """

    files: dict[str, str]
    images: tuple[str, ...]
    header: str
    keys: tuple[str, ...]
    cell: str
    folder: str | None = None
    overrides: tuple[str, ...] = ()


def write_miniature(root: Path, miniature: Miniature) -> None:
    """Lay out the competition below `root`."""
    generator = np.random.default_rng(5)
    for name, text in miniature.files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode())
    for name in miniature.images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        _draw(root / name, generator)


def _draw(path: Path, generator: np.random.Generator) -> None:
    """Noise; grey for a channel's file, CMYK, RGBA or a truncated file if the name contains that word or corrupt."""
    pixels = generator.integers(0, 256, (32, 32, 4), dtype=np.uint8)
    if "cmyk" in path.name:
        Image.fromarray(pixels, mode="CMYK").save(path)
    elif "rgba" in path.name:
        cv2.imwrite(str(path), pixels)
    elif path.stem.endswith(("_red", "_green", "_blue", "_yellow")):
        cv2.imwrite(str(path), pixels[..., 0])
    else:
        cv2.imwrite(str(path), pixels[..., :3])
    if "corrupt" in path.name:
        path.write_bytes(path.read_bytes()[:200])


PROBABILITY = r"[0-9.e-]+"
MINIATURES: dict[str, Miniature] = {}

MINIATURES["dacon_4d_block"] = Miniature(
    files={
        "train.csv": """id,img_path,A,B,C,D,E,F,G,H,I,J
TRAIN_00000,./train/TRAIN_00000.jpg,1,0,0,1,1,0,0,0,0,1
TRAIN_00001,./train/TRAIN_00001.jpg,1,0,0,1,1,0,0,0,0,1
TRAIN_00002,./train/TRAIN_00002.jpg,0,1,1,0,0,1,0,1,1,0
TRAIN_00003,./train/TRAIN_00003.jpg,0,1,1,0,0,1,0,1,1,0
TRAIN_00004,./train/TRAIN_00004.jpg,1,1,0,0,1,0,1,0,0,0
TRAIN_00005,./train/TRAIN_00005.jpg,1,1,0,0,1,0,1,0,0,0
TRAIN_00006,./train/TRAIN_00006.jpg,0,0,1,1,0,1,1,1,1,1
TRAIN_00007,./train/TRAIN_00007.jpg,0,0,1,1,0,1,1,1,1,1
""",
        "test.csv": "id,img_path\nTEST_00000,./test/TEST_00000.jpg\nTEST_00001,./test/TEST_00001.jpg\n",
        "sample_submission.csv": "id,A,B,C,D,E,F,G,H,I,J\nTEST_00000,0,0,0,0,0,0,0,0,0,0\nTEST_00001,0,0,0,0,0,0,0,0,0,0\n",
    },
    images=(
        *(f"train/TRAIN_{number:05d}.jpg" for number in range(8)),
        "test/TEST_00000.jpg",
        "test/TEST_00001.jpg",
    ),
    header="id,A,B,C,D,E,F,G,H,I,J",
    keys=("TEST_00000", "TEST_00001"),
    cell="[01]",
    overrides=("competition.groups={chunks: 2}",),
)

MINIATURES["dirty_mnist"] = Miniature(
    files={
        "dirty_mnist_2nd_answer.csv": """index,a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z
0,0,0,0,0,0,0,0,0,0,1,0,0,0,1,0,0,1,0,1,1,0,0,1,1,0,1
1,1,1,1,1,1,1,1,1,1,0,1,1,1,0,1,1,0,1,0,0,1,1,0,0,1,0
2,0,1,0,0,0,0,0,0,0,1,0,0,0,1,0,0,1,0,1,1,0,0,1,1,0,1
3,1,0,1,1,1,1,1,1,1,0,1,1,1,0,1,1,0,1,0,0,1,1,0,0,1,0
4,0,0,0,0,0,0,0,0,0,1,0,0,0,1,0,0,1,0,1,1,0,0,1,1,0,1
5,1,1,1,1,1,1,1,1,1,0,1,1,1,0,1,1,0,1,0,0,1,1,0,0,1,0
""",
        "sample_submission.csv": """index,a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z
50000,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0
50001,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0
""",
    },
    images=(
        *(f"dirty_mnist_2nd/{number:05d}.png" for number in range(6)),
        "test_dirty_mnist_2nd/50000.png",
        "test_dirty_mnist_2nd/50001.png",
    ),
    header="index,a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z",
    keys=("50000", "50001"),
    cell="[01]",
)

MINIATURES["planet_amazon"] = Miniature(
    files={
        "train_v2.csv": """image_name,tags
train_0,haze primary
train_1,agriculture clear primary water
train_2_cmyk,clear primary
train_3,clear primary
train_4,agriculture clear habitation primary road
train_5,haze primary water
train_6,agriculture haze primary
train_7,cloudy
""",
        "sample_submission_v2.csv": "image_name,tags\ntest_0,primary clear agriculture road water\nfile_7,primary clear\n",
    },
    images=(
        *(f"train-jpg/train_{number}.jpg" for number in (0, 1, "2_cmyk", 3, 4, 5, 6, 7)),
        "test-jpg/test_0.jpg",
        "test-jpg-additional/file_7.jpg",
    ),
    header="image_name,tags",
    keys=("test_0", "file_7"),
    cell="[a-z_ ]+",
    overrides=("competition.labels.exclusive=[[clear, cloudy, haze]]",),
)

MINIATURES["hpa_2018"] = Miniature(
    files={
        "train.csv": """Id,Target
00070df0-bbc3-11e8-b2bc-ac1f6b6435d0,16 0
000a6c98-bb9b-11e8-b2b9-ac1f6b6435d0,7 1 2 0
000a9596-bbc4-11e8-b2bc-ac1f6b6435d0,5
000c99ba-bba4-11e8-b2b9-ac1f6b6435d0,1
001838f8-bbca-11e8-b2bc-ac1f6b6435d0,25 2
001bcdd2-bbb2-11e8-b2ba-ac1f6b6435d0,0
""",
        "sample_submission.csv": "Id,Predicted\n00008af0-bad0-11e8-b2b8-ac1f6b6435d0,0\n"
        "0000a892-bacf-11e8-b2b8-ac1f6b6435d0,0\n",
    },
    images=tuple(
        f"{name}_{channel}.png"
        for name in (
            "train/00070df0-bbc3-11e8-b2bc-ac1f6b6435d0",
            "train/000a6c98-bb9b-11e8-b2b9-ac1f6b6435d0",
            "train/000a9596-bbc4-11e8-b2bc-ac1f6b6435d0",
            "train/000c99ba-bba4-11e8-b2b9-ac1f6b6435d0",
            "train/001838f8-bbca-11e8-b2bc-ac1f6b6435d0",
            "train/001bcdd2-bbb2-11e8-b2ba-ac1f6b6435d0",
            "test/00008af0-bad0-11e8-b2b8-ac1f6b6435d0",
            "test/0000a892-bacf-11e8-b2b8-ac1f6b6435d0",
        )
        for channel in ("red", "green", "blue", "yellow")
    ),
    header="Id,Predicted",
    keys=("00008af0-bad0-11e8-b2b8-ac1f6b6435d0", "0000a892-bacf-11e8-b2b8-ac1f6b6435d0"),
    cell="[0-9]+( [0-9]+)*",
)

_IMET = Miniature(
    files={
        "train.csv": """id,attribute_ids
1000483014d91860,147 616 813
1000fe2e667721fe,51 616 734 813
1001614cb89646ee,776
10041eb49b297c08,51 671 698 813 1092
100501c227f8beea,13 404 492 903 1093
100d6c9ef4a9d0bc,147 776
""",
        "labels.csv": """attribute_id,attribute_name
13,culture::american
51,culture::british
147,culture::french
404,"culture::possibly vienna, austria"
492,culture::turkish or venice
616,tag::birds
671,tag::dogs
698,tag::flowers
734,tag::girls
776,tag::landscapes
813,tag::men
903,tag::ornament
1092,tag::women
1093,tag::writing systems
""",
        "sample_submission.csv": "id,attribute_ids\n10023b2cc4ed5f68,0 1 2\n100fbe75ed8fd887,0 1 2\n",
    },
    images=(
        *(
            f"train/{name}.png"
            for name in (
                "1000483014d91860",
                "1000fe2e667721fe",
                "1001614cb89646ee",
                "10041eb49b297c08",
                "100501c227f8beea",
                "100d6c9ef4a9d0bc",
            )
        ),
        "test/10023b2cc4ed5f68.png",
        "test/100fbe75ed8fd887.png",
    ),
    header="id,attribute_ids",
    keys=("10023b2cc4ed5f68", "100fbe75ed8fd887"),
    cell="[0-9]+( [0-9]+)*",
    overrides=("model.query_groups=5",),
)
MINIATURES["imet_2019"] = _IMET
MINIATURES["imet_2020"] = _IMET

MINIATURES["plant_pathology_2021"] = Miniature(
    files={
        "train.csv": """image,labels
800113bb65efe69e.jpg,healthy
8002cb321f8bfcdf.jpg,scab frog_eye_leaf_spot complex
80070f7fb5e2ccaa.jpg,scab
80077517781fb94f.jpg,scab
800cbf0ff87721f8.jpg,complex
800edef467d27c15.jpg,healthy
800f85dc5f407aef.jpg,rust
801d6dcd96e48ebc.jpg,healthy
801f78399a44e7af.jpg,powdery_mildew complex
8021b94d437eb7d3.jpg,rust frog_eye_leaf_spot
""",
        "sample_submission.csv": """image,labels
85f8cb619c66b863.jpg,healthy
ad8770db05586b59.jpg,healthy
c7b03e718489f3ca.jpg,healthy
""",
    },
    images=(
        *(
            f"train_images/{name}.jpg"
            for name in (
                "800113bb65efe69e",
                "8002cb321f8bfcdf",
                "80070f7fb5e2ccaa",
                "80077517781fb94f",
                "800cbf0ff87721f8",
                "800edef467d27c15",
                "800f85dc5f407aef",
                "801d6dcd96e48ebc",
                "801f78399a44e7af",
                "8021b94d437eb7d3",
            )
        ),
        *(
            f"test_images/{name}.jpg"
            for name in (
                "85f8cb619c66b863",
                "ad8770db05586b59",
                "c7b03e718489f3ca",
                "0a1b2c_corrupt",
                "ffff000011112222",
            )
        ),
    ),
    header="image,labels",
    keys=(
        "0a1b2c_corrupt.jpg",
        "85f8cb619c66b863.jpg",
        "ad8770db05586b59.jpg",
        "c7b03e718489f3ca.jpg",
        "ffff000011112222.jpg",
    ),
    cell="[a-z_ ]+",
    folder="test_images",
)

MINIATURES["ranzcr_clip"] = Miniature(
    files={
        "train.csv": """StudyInstanceUID,ETT - Abnormal,ETT - Borderline,ETT - Normal,NGT - Abnormal,NGT - Borderline,\
NGT - Incompletely Imaged,NGT - Normal,CVC - Abnormal,CVC - Borderline,CVC - Normal,Swan Ganz Catheter Present,PatientID
1.2.826.0.1.3680043.8.498.26697628953273228189375557799582420561,0,0,0,0,0,0,1,0,0,0,0,ec89415d1
1.2.826.0.1.3680043.8.498.46302891597398758759818628675365157729,0,0,1,0,0,1,0,0,0,1,0,bf4c6da3c
1.2.826.0.1.3680043.8.498.23819260719748494858948050424870692577,0,0,0,0,0,0,0,0,1,0,0,3fc1c97e5
1.2.826.0.1.3680043.8.498.68286643202323212801283518367144358744,1,1,0,1,1,0,0,1,0,0,1,c31019814
1.2.826.0.1.3680043.8.498.10050203009225938259119000528814762175,0,0,0,0,0,1,1,0,0,1,0,ec89415d1
1.2.826.0.1.3680043.8.498.49757148541013043463571306300160172158,1,1,1,1,1,0,0,1,1,0,1,207685cd1
""",
        "sample_submission.csv": """StudyInstanceUID,ETT - Abnormal,ETT - Borderline,ETT - Normal,NGT - Abnormal,\
NGT - Borderline,NGT - Incompletely Imaged,NGT - Normal,CVC - Abnormal,CVC - Borderline,CVC - Normal,\
Swan Ganz Catheter Present
1.2.826.0.1.3680043.8.498.46923145579096002617106567297135160932,0,0,0,0,0,0,0,0,0,0,0
1.2.826.0.1.3680043.8.498.84006870182611080091824109767561564887,0,0,0,0,0,0,0,0,0,0,0
""",
    },
    images=tuple(
        f"{part}/1.2.826.0.1.3680043.8.498.{number}.jpg"
        for part, number in (
            ("train", "26697628953273228189375557799582420561"),
            ("train", "46302891597398758759818628675365157729"),
            ("train", "23819260719748494858948050424870692577"),
            ("train", "68286643202323212801283518367144358744"),
            ("train", "10050203009225938259119000528814762175"),
            ("train", "49757148541013043463571306300160172158"),
            ("test", "46923145579096002617106567297135160932"),
            ("test", "84006870182611080091824109767561564887"),
        )
    ),
    header="StudyInstanceUID,ETT - Abnormal,ETT - Borderline,ETT - Normal,NGT - Abnormal,NGT - Borderline,"
    "NGT - Incompletely Imaged,NGT - Normal,CVC - Abnormal,CVC - Borderline,CVC - Normal,Swan Ganz Catheter Present",
    keys=(
        "1.2.826.0.1.3680043.8.498.46923145579096002617106567297135160932",
        "1.2.826.0.1.3680043.8.498.84006870182611080091824109767561564887",
    ),
    cell=PROBABILITY,
)

MINIATURES["rsna_hemorrhage"] = Miniature(
    files={
        "stage_2_train.csv": """ID,Label
ID_12cadc6af_epidural,0
ID_12cadc6af_intraparenchymal,0
ID_12cadc6af_intraventricular,1
ID_12cadc6af_subarachnoid,0
ID_12cadc6af_subdural,0
ID_12cadc6af_any,1
ID_38fd7baa0_epidural,0
ID_38fd7baa0_intraparenchymal,1
ID_38fd7baa0_intraventricular,0
ID_38fd7baa0_subarachnoid,0
ID_38fd7baa0_subdural,1
ID_38fd7baa0_any,1
ID_489ae4179_epidural,1
ID_489ae4179_intraparenchymal,0
ID_489ae4179_intraventricular,0
ID_489ae4179_subarachnoid,1
ID_489ae4179_subdural,0
ID_489ae4179_any,1
ID_854fba667_epidural,0
ID_854fba667_intraparenchymal,0
ID_854fba667_intraventricular,0
ID_854fba667_subarachnoid,0
ID_854fba667_subdural,0
ID_854fba667_any,0
ID_489ae4179_epidural,1
ID_489ae4179_intraparenchymal,0
ID_489ae4179_intraventricular,0
ID_489ae4179_subarachnoid,1
ID_489ae4179_subdural,0
ID_489ae4179_any,1
""",
        "stage_2_sample_submission.csv": """ID,Label
ID_0fbf6a978_subarachnoid,0.5
ID_d62ec3412_epidural,0.5
ID_d62ec3412_intraparenchymal,0.5
ID_d62ec3412_intraventricular,0.5
ID_d62ec3412_subarachnoid,0.5
ID_d62ec3412_subdural,0.5
ID_d62ec3412_any,0.5
""",
    },
    images=(
        *(f"stage_2_train/ID_{name}.png" for name in ("12cadc6af", "38fd7baa0", "489ae4179", "854fba667")),
        "stage_2_test/ID_0fbf6a978.png",
        "stage_2_test/ID_d62ec3412.png",
    ),
    header="ID,Label",
    keys=(
        "ID_0fbf6a978_subarachnoid",
        "ID_d62ec3412_epidural",
        "ID_d62ec3412_intraparenchymal",
        "ID_d62ec3412_intraventricular",
        "ID_d62ec3412_subarachnoid",
        "ID_d62ec3412_subdural",
        "ID_d62ec3412_any",
    ),
    cell=PROBABILITY,
)

MINIATURES["nih_chestxray14"] = Miniature(
    files={
        "Data_Entry_2017.csv": """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,\
View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],
00000001_000.png,Cardiomegaly,000,1,058Y,M,PA,2682,2749,0.143,0.143,
00000001_001.png,Cardiomegaly|Emphysema,001,1,058Y,M,PA,2894,2729,0.143,0.143,
00000002_000.png,No Finding,000,2,081Y,M,PA,2500,2048,0.171,0.171,
00000003_000_rgba.png,Hernia,000,3,081Y,F,PA,2582,2991,0.143,0.143,
00000004_000.png,Effusion|Hernia,000,4,082Y,M,AP,2500,2048,0.168,0.168,
00000005_000.png,Effusion|Cardiomegaly,000,5,069Y,F,PA,2048,2500,0.168,0.168,
""",
    },
    images=(
        "images_001/images/00000001_000.png",
        "images_001/images/00000001_001.png",
        "images_001/images/00000002_000.png",
        "images_002/images/00000003_000_rgba.png",
        "images_012/images/00000004_000.png",
        "images_012/images/00000005_000.png",
        "new/00000099_000.png",
        "new/00000098_001.png",
    ),
    header="Image Index,Cardiomegaly,Effusion,Emphysema,Hernia",
    keys=("00000098_001.png", "00000099_000.png"),
    cell=PROBABILITY,
    folder="new",
)

_CHEXPERT_HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,"
    "Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
MINIATURES["chexpert"] = Miniature(
    files={
        "CheXpert-v1.0-small/train.csv": _CHEXPERT_HEADER
        + """
CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0
CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,Female,87,Frontal,AP,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,
CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg,Female,83,Frontal,AP,,1.0,,1.0,1.0,,-1.0,1.0,,,,1.0,,
CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg,Female,83,Lateral,,,1.0,1.0,1.0,,,-1.0,,,1.0,,,,
CheXpert-v1.0-small/train/patient00003/study1/view1_frontal.jpg,Male,41,Frontal,AP,,,,,,1.0,1.0,,,0.0,1.0,,,
CheXpert-v1.0-small/train/patient00004/study1/view1_frontal.jpg,Female,20,Frontal,PA,1.0,0.0,1.0,,1.0,,,0.0,1.0,1.0,1.0,1.0,1.0,
""",
        "CheXpert-v1.0-small/valid.csv": _CHEXPERT_HEADER
        + """
CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0
CheXpert-v1.0-small/valid/patient64542/study1/view1_frontal.jpg,Male,70,Frontal,PA,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0
""",
    },
    images=tuple(
        f"CheXpert-v1.0-small/{name}.jpg"
        for name in (
            "train/patient00001/study1/view1_frontal",
            "train/patient00002/study2/view1_frontal",
            "train/patient00002/study1/view1_frontal",
            "train/patient00002/study1/view2_lateral",
            "train/patient00003/study1/view1_frontal",
            "train/patient00004/study1/view1_frontal",
            "valid/patient64541/study1/view1_frontal",
            "valid/patient64542/study1/view1_frontal",
        )
    ),
    header="Path,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,"
    "Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices",
    keys=(
        "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg",
        "CheXpert-v1.0-small/valid/patient64542/study1/view1_frontal.jpg",
    ),
    cell=PROBABILITY,
)

_SLAM = (
    "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,No Finding,"
    "Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
MINIATURES["grand_xray_slam"] = Miniature(
    files={
        "train1.csv": f"""Image_name,Patient_ID,Study,Sex,Age,ViewCategory,ViewPosition,{_SLAM}
00000001_001_001.jpg,1,1,Male,34.0,Frontal,AP,0,0,1,0,0,1,0,0,1,0,1,0,0,1
00000002_001_001.jpg,2,1,Female,61.0,Frontal,PA,1,1,0,1,1,0,1,1,0,1,0,1,1,0
00000002_001_002.jpg,2,1,Female,61.0,Lateral,,1,1,0,1,1,0,1,1,0,1,0,1,1,0
00000003_001_corrupt.jpg,3,1,Male,50.0,Frontal,AP,0,0,0,0,0,0,0,0,1,0,0,0,0,0
00000004_001_001.jpg,4,1,Male,,Frontal,AP,1,0,1,0,1,0,1,0,0,0,1,0,1,0
00000005_001_001.jpg,5,1,Female,77.0,Frontal,AP,0,1,0,1,0,1,0,1,0,1,0,1,0,1
""",
        "sample_submission_1.csv": f"""Image_name,{_SLAM}
00000030_001_001.jpg,0,0,0,0,0,0,0,0,0,0,0,0,0,0
00000029_001_corrupt.jpg,0,0,0,0,0,0,0,0,0,0,0,0,0,0
""",
    },
    images=(
        "train1/00000001_001_001.jpg",
        "train1/00000002_001_001.jpg",
        "train1/00000002_001_002.jpg",
        "train1/00000003_001_corrupt.jpg",
        "train1/00000004_001_001.jpg",
        "train1/00000005_001_001.jpg",
        "test1/00000030_001_001.jpg",
        "test1/00000029_001_corrupt.jpg",
    ),
    header=f"Image_name,{_SLAM}",
    keys=("00000030_001_001.jpg", "00000029_001_corrupt.jpg"),
    cell=PROBABILITY,
)

MINIATURES["comp5329"] = Miniature(
    files={
        "train.csv": """ImageID,Labels,Caption
0.jpg,1,Woman in swim suit holding parasol on sunny day.
1.jpg,1 19,"A couple of men riding horses on top of a green field."
2.jpg,1,They are brave for riding in the jungle on those elephants.
3.jpg,8 3 13,a black and silver clock tower at an intersection near a tree
4.jpg,8 3 13 7,"A train coming to a stop on the tracks out side."
5.jpg,13 19,A sign reading "No parking, ever on a pole" in the rain
""",
        "test.csv": """ImageID,Caption
30000.jpg,A little girl waring a visor and holding a shirt
30001.jpg,"A bench, a "dog" and a tree
""",
    },
    images=(*(f"data/{number}.jpg" for number in range(6)), "data/30000.jpg", "data/30001.jpg"),
    header="ImageID,Labels",
    keys=("30000.jpg", "30001.jpg"),
    cell="[0-9]+( [0-9]+)*",
)

MINIATURES["coco"] = Miniature(
    files={
        "annotations/instances_train2017.json": """{"info": {"year": 2017}, "licenses": [], "images": [
{"license": 3, "file_name": "000000391895.jpg", "height": 360, "width": 640, "id": 391895},
{"license": 4, "file_name": "000000522418.jpg", "height": 480, "width": 640, "id": 522418},
{"license": 3, "file_name": "000000184613.jpg", "height": 336, "width": 500, "id": 184613},
{"license": 3, "file_name": "000000318219.jpg", "height": 640, "width": 556, "id": 318219}],
"annotations": [
{"segmentation": [], "area": 2765.1, "iscrowd": 0, "image_id": 391895, "bbox": [359.17, 146.17, 112.45, 213.57], "category_id": 4, "id": 151091},
{"segmentation": [], "area": 1545.4, "iscrowd": 0, "image_id": 391895, "bbox": [339.88, 22.16, 153.88, 300.73], "category_id": 1, "id": 202758},
{"segmentation": [], "area": 1545.4, "iscrowd": 0, "image_id": 391895, "bbox": [9.88, 22.16, 15.88, 30.73], "category_id": 1, "id": 202759},
{"segmentation": {"counts": [1, 2], "size": [2, 2]}, "area": 9, "iscrowd": 1, "image_id": 522418, "bbox": [1, 2, 3, 4], "category_id": 90, "id": 900},
{"segmentation": [], "area": 9, "iscrowd": 0, "image_id": 318219, "bbox": [1, 2, 3, 4], "category_id": 90, "id": 901},
{"segmentation": [], "area": 9, "iscrowd": 0, "image_id": 318219, "bbox": [1, 2, 3, 4], "category_id": 4, "id": 902}],
"categories": [
{"supercategory": "person", "id": 1, "name": "person"},
{"supercategory": "vehicle", "id": 4, "name": "motorcycle"},
{"supercategory": "indoor", "id": 90, "name": "toothbrush"}]}
""",
    },
    images=(
        *(f"train2017/{name}.jpg" for name in ("000000391895", "000000522418", "000000184613", "000000318219")),
        "val2017/000000397133.jpg",
        "val2017/000000037777.jpg",
    ),
    header="file_name,person,motorcycle,toothbrush",
    keys=("000000037777.jpg", "000000397133.jpg"),
    cell=PROBABILITY,
    folder="val2017",
)

MINIATURES["voc2007"] = Miniature(
    files={
        "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt": "000005\n000007\n000009\n000012\n000016\n",
        "VOCdevkit/VOC2007/ImageSets/Main/aeroplane_trainval.txt": "000005 -1\n000007 -1\n000009  1\n000012 -1\n000016  1\n",
        "VOCdevkit/VOC2007/ImageSets/Main/car_trainval.txt": "000005 -1\n000007  1\n000009 -1\n000012  1\n000016 -1\n",
        "VOCdevkit/VOC2007/ImageSets/Main/car_train.txt": "000007  1\n",
        "VOCdevkit/VOC2007/ImageSets/Main/chair_trainval.txt": "000005  1\n000007 -1\n000009  0\n000012 -1\n000016  1\n",
    },
    images=(
        *(f"VOCdevkit/VOC2007/JPEGImages/{name}.jpg" for name in ("000005", "000007", "000009", "000012", "000016")),
        "test/000001.jpg",
        "test/000002.jpg",
    ),
    header="id,aeroplane,car,chair",
    keys=("000001", "000002"),
    cell=PROBABILITY,
    folder="test",
)
