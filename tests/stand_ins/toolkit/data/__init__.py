from toolkit.data.feat_data import Data_Feat
from toolkit.data.feat_data_topn import Data_Feat_TOPN


def get_datasets(args, names, labels):
    return (Data_Feat_TOPN if args["model"] == "attention_topn" else Data_Feat)(args, names, labels)
