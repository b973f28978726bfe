"""SSDLite on MnasNet: anchors, matching, network, losses, COCO data, evaluation, drawing; for training and after."""
